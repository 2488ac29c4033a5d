//! Debug registers and single steps, over instructions that leave the guest, too.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use partita_abi::hypercall::NOP;
use partita_rt::place::uses_vmmcall;
use partita_rt::{Error, Machine, Place};

use crate::claims::Claims;
use crate::edges;
use crate::peer::Pair;
use crate::step_nmi;
use crate::trap::{self, DEBUG, DR6_CLEAR, GENERAL_PROTECTION, INVALID_OPCODE, NOTHING, trial};

const DR6_STEP: u64 = 1 << 14;
const DR6_DETECT: u64 = 1 << 13;
const DR7_CLEAR: u64 = 0x400;
const DR7_DETECT: u64 = 1 << 13;
const CR4_DEBUG_EXTENSIONS: u64 = 1 << 3;
/// Conditions of a breakpoint, in DR7 (APM vol. 2 section 13.1.1.4).
const WRITE: u64 = 1;
const PORT: u64 = 2;
const ACCESS: u64 = 3;
/// The POST port: it costs an exit.
const EXITING_PORT: u16 = 0x80;
/// From the base of a serial port, its scratch register.
const SCRATCH: u16 = 7;
/// Iterations that are stepped one by one, kicks in between.
const STEPS: u64 = 3000;

/// DR7 with breakpoint `index` on, for the condition and so many bytes.
const fn dr7(index: u32, condition: u64, len: u64) -> u64 {
    let len = match len {
        2 => 1,
        4 => 3,
        8 => 2,
        _ => 0,
    };
    1 << (index * 2) | (condition | len << 2) << (16 + index * 4)
}

fn set(addresses: [u64; 4], control: u64) {
    // SAFETY: breakpoints have a handler, or are taken by nobody.
    unsafe {
        asm!("mov dr7, {4}", "mov dr0, {0}", "mov dr1, {1}", "mov dr2, {2}", "mov dr3, {3}", "mov dr6, {5}", "mov dr7, {6}",
            in(reg) addresses[0], in(reg) addresses[1], in(reg) addresses[2], in(reg) addresses[3],
            in(reg) DR7_CLEAR, in(reg) DR6_CLEAR, in(reg) control | DR7_CLEAR, options(nostack, preserves_flags));
    }
}

fn clear() {
    set([0; 4], 0);
}

/// DR0 to DR3, DR6 and DR7.
fn registers() -> [u64; 6] {
    let [mut a, mut b, mut c, mut d, mut e, mut f] = [0_u64; 6];
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", "mov {}, dr6", "mov {}, dr7",
            out(reg) a, out(reg) b, out(reg) c, out(reg) d, out(reg) e, out(reg) f, options(nomem, nostack));
    }
    [a, b, c, d, e, f]
}

/// Executes one instruction with RFLAGS.TF and a NOP behind it, and gives the address of the latter.
macro_rules! step {
    ($instruction:literal $(, $($operands:tt)+)?) => {{
        trap::go_on_after(DEBUG);
        let behind: u64;
        // SAFETY: the operands name what the instruction changes; each #DB goes on.
        unsafe {
            asm!(
                "lea r14, [rip + 3f]",
                "mov r13, rbx",
                "pushfq",
                "or qword ptr [rsp], 0x100",
                "popfq",
                $instruction,
                "3: nop",
                "pushfq",
                "and qword ptr [rsp], -0x101",
                "popfq",
                "mov rbx, r13",
                out("r14") behind, out("r13") _, $($($operands)+)?
            );
        }
        behind
    }};
}

/// The first trap comes right behind the instruction, the second one behind the NOP, and both are single steps.
fn claim_step(claims: &mut Claims, text: &str, behind: u64) {
    let [first, second] = [0, 1].map(trap::get);
    claims.equal(text, first.rip, behind);
    let steps = [first, second].iter().all(|trap| trap.vector == DEBUG && trap.dr6 == DR6_CLEAR | DR6_STEP);
    claims.about(
        "  and behind the next one, as single steps",
        steps && second.rip == behind + 1,
        second.rip,
        first.dr6,
    );
}

fn steps(claims: &mut Claims, in_partition: bool) {
    claim_step(claims, "a single step over NOP", step!("nop"));
    claim_step(
        claims,
        "a single step over CPUID",
        step!("cpuid", inout("eax") 0 => _, inout("ecx") 0 => _, out("edx") _),
    );
    let msr = 0x1B;
    claim_step(claims, "a single step over RDMSR", step!("rdmsr", in("ecx") msr, out("eax") _, out("edx") _));
    let (low, high) = efer();
    let msr = 0xC000_0080_u32;
    claim_step(claims, "a single step over WRMSR", step!("wrmsr", in("ecx") msr, in("eax") low, in("edx") high));
    claim_step(claims, "a single step over OUT", step!("out dx, al", in("dx") EXITING_PORT, in("al") 0_u8));
    claim_step(claims, "a single step over IN", step!("in al, dx", in("dx") EXITING_PORT, out("al") _));
    claim_step(claims, "a single step over OUT with immediate port", step!("out 0x80, al", in("al") 0_u8));
    claim_step(claims, "a single step over WBINVD", step!("wbinvd"));
    let behind = step!("sti");
    // SAFETY: as before; what came in between has handlers.
    unsafe { asm!("cli", options(nomem, nostack)) };
    claim_step(claims, "a single step over STI", behind);
    edges::shadow(claims);
    if in_partition {
        let behind = if uses_vmmcall() {
            step!("vmmcall", inout("rax") u64::from(NOP) => _)
        } else {
            step!("vmcall", inout("rax") u64::from(NOP) => _)
        };
        claim_step(claims, "a single step over a hypercall", behind);
    }
    trap::go_on_after(DEBUG);
    // SAFETY: each #DB goes on.
    unsafe {
        asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "2: loop 2b",
            "pushfq", "and qword ptr [rsp], -0x101", "popfq", inout("rcx") STEPS => _);
    }
    // PUSHFQ, AND and POPFQ are stepped over, too.
    claims.equal("every step of a loop is a trap", trap::count(), STEPS + 3);
    trap::go_on_after(DEBUG);
    // SAFETY: each #DB goes on.
    unsafe {
        asm!("mov r13, rbx", "pushfq", "or qword ptr [rsp], 0x100", "popfq",
            "2: xor eax, eax", "cpuid", "out 0x80, al", "dec r14d", "jnz 2b",
            "pushfq", "and qword ptr [rsp], -0x101", "popfq", "mov rbx, r13",
            inout("r14") STEPS => _, out("r13") _, out("rax") _, out("rcx") _, out("rdx") _);
    }
    claims.equal("  of a loop that leaves the guest, too", trap::count(), STEPS * 5 + 3);
}

fn efer() -> (u32, u32) {
    let (low, high): (u32, u32);
    // SAFETY: every x86-64 CPU has it.
    unsafe { asm!("rdmsr", in("ecx") 0xC000_0080_u32, out("eax") low, out("edx") high, options(nomem, nostack)) };
    (low, high)
}

/// Breakpoints on an instruction that leaves the guest and on the next one: each comes before its instruction, once.
fn execution(claims: &mut Claims) {
    let (first, second): (u64, u64);
    trap::go_on_after(DEBUG);
    // SAFETY: breakpoints go on.
    unsafe {
        asm!(
            "mov r13, rbx", "lea r14, [rip + 2f]", "lea r12, [rip + 3f]", "mov dr0, r14", "mov dr1, r12",
            "mov eax, 0x405", "mov dr7, rax", "xor eax, eax", "xor ecx, ecx",
            "2: cpuid", "3: nop", "mov eax, 0x400", "mov dr7, rax", "mov rbx, r13",
            out("r14") first, out("r12") second, out("r13") _, out("rax") _, out("rcx") _, out("rdx") _,
        );
    }
    claims.equal("a breakpoint on CPUID comes before it", trap::get(0).rip, first);
    claims.equal("  and says so", trap::get(0).dr6, DR6_CLEAR | 1);
    claims.equal("  one on the next instruction comes, too", trap::get(1).rip, second);
    claims.equal("  and says so", trap::get(1).dr6, DR6_CLEAR | 2);
    claims.equal("  no other comes", trap::count(), 2);
    clear();
}

static DATA: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

fn write(at: u64) -> u64 {
    let behind: u64;
    // SAFETY: writes one byte of `DATA`.
    unsafe {
        asm!("lea {1}, [rip + 2f]", "mov byte ptr [{0}], 1", "2:", in(reg) at, out(reg) behind, options(nostack))
    };
    behind
}

fn data(claims: &mut Claims) {
    let at = DATA.as_ptr() as u64;
    for (index, len) in (0_u32..4).zip([1, 2, 4, 8]) {
        set([at; 4], dr7(index, WRITE, len));
        trap::go_on_after(DEBUG);
        let behind = write(at + len - 1);
        let trap = trap::get(0);
        claims.equal("a write breakpoint comes behind the write", trap.rip, behind);
        claims.equal("  and says which it is", trap.dr6 & !0xF | (trap.dr6 & 1 << index), DR6_CLEAR | 1 << index);
        trap::go_on_after(DEBUG);
        write(at + len);
        DATA[0].load(Ordering::Relaxed);
        claims.equal("  none comes for a read, or a byte further on", trap::count(), 0);
    }
    set([at; 4], dr7(3, ACCESS, 8));
    trap::go_on_after(DEBUG);
    DATA[0].load(Ordering::Relaxed);
    claims.equal("a breakpoint for reads comes", trap::count(), 1);
    clear();
}

fn out(port: u16) -> u64 {
    let behind: u64;
    // SAFETY: a diagnostic port, or a register without effect.
    unsafe { asm!("lea {0}, [rip + 2f]", "out dx, al", "2:", out(reg) behind, in("dx") port, in("al") 0_u8) };
    behind
}

fn ports(claims: &mut Claims, console: u16) {
    set_cr4(true);
    set([EXITING_PORT.into(); 4], dr7(1, PORT, 1));
    trap::go_on_after(DEBUG);
    let behind: u64;
    // SAFETY: a diagnostic port.
    unsafe { asm!("lea {0}, [rip + 2f]", "in al, 0x80", "2:", out(reg) behind, out("al") _) };
    claims.about(
        "one comes behind IN, too",
        trap::get(0).rip == behind && trap::get(0).dr6 & 2 != 0,
        trap::get(0).rip,
        behind,
    );
    for (port, text) in [
        (console + SCRATCH, "a breakpoint on the console's port comes behind OUT"),
        (EXITING_PORT, "a breakpoint on a port that exits comes behind OUT"),
    ] {
        set([port.into(); 4], dr7(2, PORT, 1));
        trap::go_on_after(DEBUG);
        let behind = out(port);
        claims.equal(text, trap::get(0).rip, behind);
        claims.equal("  and says so", trap::get(0).dr6 & 4, 4);
        trap::go_on_after(DEBUG);
        out(if port == EXITING_PORT { console + SCRATCH } else { EXITING_PORT });
        claims.equal("  none comes on another port", trap::count(), 0);
        clear();
    }
    trap::forget();
    claims.equal("DR4 is not there with CR4.DE", trial!(["mov rax, dr4"], out("rax") _).vector, INVALID_OPCODE);
    set_cr4(false);
    let dr4: u64;
    let trap = trial!(["mov rax, dr4"], out("rax") dr4);
    claims.about("DR4 is DR6 without it", trap.vector == NOTHING && dr4 == DR6_CLEAR, dr4, trap.vector);
}

fn set_cr4(debug_extensions: bool) {
    // SAFETY: only says what DR7 means; no breakpoint is on.
    unsafe {
        asm!("mov {0}, cr4", "and {0}, {keep}", "or {0}, {1}", "mov cr4, {0}", out(reg) _,
            in(reg) u64::from(debug_extensions) * CR4_DEBUG_EXTENSIONS, keep = const !(CR4_DEBUG_EXTENSIONS as i64));
    }
}

fn values(claims: &mut Claims, detects: bool) {
    trap::forget();
    let high = 1_u64 << 32;
    claims.equal("DR6 has 32 bits", trial!(["mov dr6, rax"], in("rax") high).vector, GENERAL_PROTECTION);
    claims.equal("DR7 has 32 bits", trial!(["mov dr7, rax"], in("rax") high).vector, GENERAL_PROTECTION);
    let back: u64;
    let trap = trial!(["mov dr6, rax", "mov rax, dr6"], inout("rax") 0_u64 => back);
    claims.about("DR6's fixed bits stay", trap.vector == NOTHING && back == DR6_CLEAR, back, trap.vector);
    if detects {
        set([0; 4], DR7_DETECT);
        let trap = trial!(["mov rax, dr0"], out("rax") _);
        claims.about(
            "DR7.GD detects an access",
            trap.vector == DEBUG && trap.dr6 & DR6_DETECT != 0,
            trap.vector,
            trap.dr6,
        );
    }
    clear();
    trap::go_on_after(DEBUG);
    let behind: u64;
    // SAFETY: the #DB goes on.
    unsafe { asm!("lea {0}, [rip + 2f]", ".byte 0xF1", "2:", out(reg) behind) };
    claims.equal("INT1 is a trap", trap::get(0).rip, behind);
    claims.equal("  which DR6 does not show", trap::get(0).dr6, DR6_CLEAR);
}

/// The registers, and what they stand for, survive exits and kicks.
fn survive(claims: &mut Claims) {
    let at = DATA.as_ptr() as u64;
    let addresses = [0x1111_2222_3333_4444, 0x5555_6666_7777_0000, 0xFFFF_8888_9999_AAAA, at];
    set(addresses, dr7(3, WRITE, 8));
    trap::go_on_after(DEBUG);
    let before = registers();
    for _ in 0..STEPS {
        out(EXITING_PORT);
        core::hint::black_box(core::arch::x86_64::__cpuid(0));
        partita_rt::relax();
    }
    claims.holds("debug registers survive exits", before == registers() && before[..4] == addresses);
    claims.equal("  no breakpoint comes meanwhile", trap::count(), 0);
    write(at);
    claims.equal("  they have their effect afterwards", trap::get(0).dr6 & 0xF, 8);
    clear();
}

fn all(claims: &mut Claims) {
    let console = CONSOLE.load(Ordering::Relaxed);
    trap::begin();
    clear();
    steps(claims, console != 0);
    execution(claims);
    data(claims);
    ports(claims, if console == 0 { 0x3F8 } else { console as u16 });
    values(claims, true);
    survive(claims);
    trap::end();
}

/// I/O base of the partition's console; 0 on the bare machine.
static CONSOLE: AtomicU64 = AtomicU64::new(0);

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    if let Place::Partition(own) = machine.place {
        CONSOLE.store(own.console.unwrap_or(0).into(), Ordering::Relaxed);
    }
    let pair = Pair::start(machine)?;
    all(&mut Claims::from(2000));
    pair.call(|| all(&mut Claims::from(2200)))?;
    step_nmi::test(&mut Claims::from(2100), &pair)
}
