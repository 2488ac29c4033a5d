//! Instructions that a guest does not have, and its hypercalls.

use core::arch::asm;

use partita_abi::hypercall::{BUSY, INVALID, NOP, SUCCESS, TRACE_WINDOW, UNKNOWN, VMWARE_MAGIC};
use partita_rt::place::uses_vmmcall;
use partita_rt::{Error, Machine, hypercall};

use crate::catch::{GP, NOTHING, UD, attempt};
use crate::claims::Claims;
use crate::user;

/// The claims.
pub(crate) fn test(_machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(700);
    virtualization(&mut claims);
    claims.equal("MONITOR", attempt!([".byte 0x0F, 0x01, 0xC8"], in("rax") 0u64, in("rcx") 0u64, in("rdx") 0u64), UD);
    claims.equal("MWAIT", attempt!([".byte 0x0F, 0x01, 0xC9"], in("rax") 0u64, in("rcx") 0u64), UD);
    claims.equal("RDPMC", attempt!(["rdpmc"], in("ecx") 0u32, out("eax") _, out("edx") _), GP);
    claims.equal("WBINVD does nothing", attempt!(["wbinvd"]), NOTHING);
    claims.equal("INVD does nothing", attempt!(["invd"]), NOTHING);
    claims.equal("UD2", attempt!(["ud2"]), UD);
    claims.equal(
        "the other vendor's hypercall",
        if uses_vmmcall() { attempt!(["vmcall"]) } else { attempt!(["vmmcall"]) },
        UD,
    );
    hypercalls(&mut claims);
    claims.equal("HLT in user code", user::halt(), GP);
    claims.equal("a hypercall in user code", user::hypercall(), UD);
    Ok(())
}

/// Both vendors' instructions: those of the other one are unknown to the CPU, its own to the guest.
fn virtualization(claims: &mut Claims) {
    claims.equal("VMRUN", attempt!([".byte 0x0F, 0x01, 0xD8"], in("rax") 0u64), UD);
    claims.equal("VMLOAD", attempt!([".byte 0x0F, 0x01, 0xDA"], in("rax") 0u64), UD);
    claims.equal("VMSAVE", attempt!([".byte 0x0F, 0x01, 0xDB"], in("rax") 0u64), UD);
    claims.equal("STGI", attempt!([".byte 0x0F, 0x01, 0xDC"]), UD);
    claims.equal("CLGI", attempt!([".byte 0x0F, 0x01, 0xDD"]), UD);
    claims.equal("SKINIT", attempt!([".byte 0x0F, 0x01, 0xDE"], in("rax") 0u64), UD);
    claims.equal("INVLPGA", attempt!([".byte 0x0F, 0x01, 0xDF"], in("rax") 0u64, in("rcx") 0u64), UD);
    if !uses_vmmcall() {
        // TCG takes them for CMPXCHG8B, on the bare machine, too.
        claims.equal("VMXON", attempt!(["vmxon [rsp - 8]"]), UD);
        claims.equal("VMPTRLD", attempt!(["vmptrld [rsp - 8]"]), UD);
        claims.equal("VMPTRST", attempt!(["vmptrst [rsp - 8]"]), UD);
        claims.equal("VMCLEAR", attempt!(["vmclear [rsp - 8]"]), UD);
    }
    claims.equal("VMXOFF", attempt!(["vmxoff"]), UD);
    claims.equal("VMLAUNCH", attempt!(["vmlaunch"]), UD);
    claims.equal("VMRESUME", attempt!(["vmresume"]), UD);
    claims.equal("VMREAD", attempt!(["vmread rax, rcx"], out("rax") _, in("rcx") 0u64), UD);
    claims.equal("VMWRITE", attempt!(["vmwrite rax, rcx"], in("rax") 0u64, in("rcx") 0u64), UD);
    claims.equal("INVEPT", attempt!(["invept rax, [rsp - 16]"], in("rax") 2u64), UD);
    claims.equal("INVVPID", attempt!(["invvpid rax, [rsp - 16]"], in("rax") 2u64), UD);
    claims.equal("VMFUNC", attempt!(["vmfunc"], in("rax") 0u64, in("rcx") 0u64), UD);
}

fn hypercalls(claims: &mut Claims) {
    let call = |number: u32, first: u64, second: u64| {
        // SAFETY: none of these calls ends the partition or lets anyone write to its memory.
        unsafe { hypercall(number, first, second) }
    };
    claims.equal("the hypercall that does nothing", call(NOP, 1, 2), SUCCESS);
    claims.equal("an unknown hypercall", call(0x1234, 1, 2), UNKNOWN);
    claims.equal("a hypercall near the known ones", call(NOP + 0xFF, 1, 2), UNKNOWN);
    claims.equal("VMware's number is none of Partita's", call(VMWARE_MAGIC, 0, 10), UNKNOWN);
    claims.equal("a second trace window", call(TRACE_WINDOW, 4 << 20, 1 << 20), BUSY);
    claims.equal("a trace window that is not aligned", call(TRACE_WINDOW, 4096, 1 << 20), INVALID);
    claims.equal("a trace window that is too short", call(TRACE_WINDOW, 4 << 20, 64), INVALID);
    claims.equal("a trace window outside of memory", call(TRACE_WINDOW, 2 << 30, 1 << 20), INVALID);
    claims.equal("a trace window that wraps", call(TRACE_WINDOW, !0x1F_FFFF, 1 << 62), INVALID);

    let (mut rdx, mut rsi, mut rdi, mut r8, mut r15) = (2u64, 3u64, 4u64, 5u64, 6u64);
    let result: u64;
    // SAFETY: does nothing.
    unsafe {
        asm!("test r9d, r9d", "jz 2f", "vmmcall", "jmp 3f", "2: vmcall", "3:", in("r9") u64::from(uses_vmmcall()),
            inout("rax") 0xFFFF_FFFF_0000_0000 | u64::from(NOP) => result, inout("rdx") rdx,
            inout("rsi") rsi, inout("rdi") rdi, inout("r8") r8, inout("r15") r15);
    }
    claims.equal("a hypercall's number is EAX alone", result, SUCCESS);
    claims.holds("a hypercall keeps the other registers", [rdx, rsi, rdi, r8, r15] == [2, 3, 4, 5, 6]);
}
