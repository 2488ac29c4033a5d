//! Links the payload by the runtime's script, and defmt's strings into a section that is not loaded.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        println!("cargo:rustc-link-arg-bins=-T{dir}/../rt/payload.ld");
        // Above the hypervisor's image: a log of instructions (`partita bench --profile`) has addresses only.
        println!("cargo:rustc-link-arg-bins=--defsym=image_base=0x600000");
        println!("cargo:rustc-link-arg-bins=-Tdefmt.x");
    }
    println!("cargo:rerun-if-changed=../rt/payload.ld");
}
