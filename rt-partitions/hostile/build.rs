//! Links the payload by the pulse's script: low, so that it fits the smallest partition, which is the fastest to restart.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{dir}/../pulse/pulse.ld");
    }
    println!("cargo:rerun-if-changed=../pulse/pulse.ld");
}
