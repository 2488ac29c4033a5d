//! Changes behind an exit, before the guest is entered again, by the pCPU's own VMREAD and VMWRITE: so they depend on the
//! architecture only, and not on how Bochs lays a VMCS out.

use crate::debugged::{Debugger, Hypervisor};
use partita_x86_policy::vmx::ept::{ADDRESS, Level, present};
use partita_x86_policy::vmx::field::{self, Field};

/// What is done to a partition, once.
pub(crate) type Fault = fn(&mut Exited<'_>);

/// `vmwrite rax, rdx; jmp rcx`
const VMWRITE: [u8; 5] = [0x0F, 0x79, 0xC2, 0xFF, 0xE1];
/// `vmread rdx, rax; jmp rcx`
const VMREAD: [u8; 5] = [0x0F, 0x78, 0xC2, 0xFF, 0xE1];

/// A pCPU that is about to enter its guest again. It will load all general-purpose registers, so that they can be used, but for RDI.
pub(crate) struct Exited<'d> {
    debugger: &'d mut Debugger,
    pcpu: u16,
    /// Where it is.
    resume: u64,
    /// Where the instructions are.
    vmwrite: u64,
    vmread: u64,
}

impl Exited<'_> {
    pub(crate) fn debugger(&mut self) -> &mut Debugger {
        self.debugger
    }

    fn execute(&mut self, instruction: u64, field: u32, value: u64) {
        let registers = [("rax", field.into()), ("rdx", value), ("rcx", self.resume), ("rip", instruction)];
        for (register, value) in registers {
            self.debugger.set_register(register, value);
        }
    }

    /// Writes a field, as the last thing.
    pub(crate) fn set<T>(&mut self, field: Field<T>, value: u64) {
        self.execute(self.vmwrite, field.encoding(), value);
    }

    /// Reads a field.
    pub(crate) fn get<T>(&mut self, field: Field<T>) -> u64 {
        self.execute(self.vmread, field.encoding(), 0);
        self.debugger.go_until(self.pcpu);
        self.debugger.register("rdx")
    }

    /// The entry of the nested tables that translates a guest-physical address: where it is, and what.
    pub(crate) fn nested_entry(&mut self, gpa: u64) -> (u64, u64) {
        let mut table = self.get(field::EPT_POINTER) & ADDRESS;
        for level in Level::ALL {
            let address = table + (gpa >> level.shift() & 0x1FF) * 8;
            let entry = self.debugger.read(address);
            assert!(present(entry), "{gpa:#x}: {level:?} {entry:#x}");
            if level.ends_at(entry) {
                return (address, entry);
            }
            table = entry & ADDRESS;
        }
        unreachable!("the last level ends the walk")
    }
}

/// Does something to the partitions of these pCPUs, each when its guest has been left for the first time.
pub(crate) fn spoil(debugger: &mut Debugger, hypervisor: &Hypervisor, mut faults: Vec<(u16, Fault)>) {
    // Code for guests whose exits are not traced: there are none. Boot's would not be mapped any more.
    let vmwrite = hypervisor.function("vmx5entry13left_untraced");
    let vmread = vmwrite + 0x10;
    // The way back from an exit that is no quick one, as the first is: RDI is the frame.
    let resume = hypervisor.function("vmx5entry5enter");
    debugger.break_at(resume);
    let mut is_written = false;
    while !faults.is_empty() {
        for pcpu in debugger.go() {
            if !is_written {
                debugger.write(vmwrite, &VMWRITE);
                debugger.write(vmread, &VMREAD);
                is_written = true;
            }
            if let Some(at) = faults.iter().position(|(victim, _)| *victim == pcpu) {
                debugger.select(pcpu);
                // A read for another one has let this one go on: it comes again.
                if debugger.register("rip") != resume {
                    continue;
                }
                let (_, fault) = faults.remove(at);
                fault(&mut Exited { debugger, pcpu, resume, vmwrite, vmread });
            }
        }
    }
}
