//! Where the code of the hypervisor is that a debugger stops at.

use object::{Object, ObjectSymbol};

/// The hypervisor that boots, as its ELF file tells of it.
pub(crate) struct Hypervisor {
    pub(super) bytes: Vec<u8>,
}

impl Hypervisor {
    fn elf(&self) -> object::File<'_> {
        object::File::parse(&self.bytes[..]).unwrap()
    }

    /// The address of the function whose symbol contains this.
    pub(crate) fn function(&self, name: &str) -> u64 {
        let elf = self.elf();
        let has = |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|symbol| symbol.contains(name));
        let found: Vec<u64> = elf.symbols().filter(has).map(|symbol| symbol.address()).collect();
        let [address] = found[..] else { panic!("the hypervisor's functions {name:?}: {found:x?}") };
        address
    }
}
