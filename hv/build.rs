//! Links the hypervisor by its own script, and defmt's strings into a section that is not loaded.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{dir}/hv.ld");
        println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
        // Functions of the same code become one: Rust does not promise that two functions differ in address. Data is left alone.
        println!("cargo:rustc-link-arg-bins=--icf=all");
    }
    println!("cargo:rerun-if-changed=hv.ld");
}
