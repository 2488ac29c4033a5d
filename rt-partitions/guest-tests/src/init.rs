//! What an application vCPU has when it starts: at first, and after an INIT, which leaves some registers alone.
//!
//! The code of the start-up page notes all of them, in real mode, before it changes any.

use core::arch::{asm, global_asm};

use partita_rt::{Error, Machine, apic, cpu, wait_until};
use partita_x86_bare::write_msr;

use crate::claims::Claims;

/// Where the code goes, next to the runtime's start-up page, and where it notes what it finds.
const PAGE: u64 = 0x9000;
const NOTES_AT: u64 = 0xA000;
const CODE_SELECTOR: u64 = PAGE >> 4;

/// What is noted, by doublewords; [`NOTED_MSRS`] follow as pairs, then the area of FXSAVE at [`FX_AT`].
#[derive(Clone, Copy)]
enum Note {
    Done,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Dr0,
    Dr1,
    Dr2,
    Dr3,
    Dr6,
    Dr7,
    Flags,
    Cs,
    Ds,
    Ss,
    Ebx,
    Esi,
    Xcr0,
}
const MSRS_AT: u64 = 0x80;
const FX_AT: u64 = 0x200;
const XSAVE: u32 = 1 << 26;

/// Registers that INIT leaves alone (SDM vol. 3 table "IA-32 and Intel 64 Processor States Following Power-up, Reset, or
/// INIT"; APM vol. 2 section 14.1.1), and what the test writes into them.
const KEPT_MSRS: [(u32, u64, &str); 9] = [
    (0x174, 0x1234, "SYSENTER_CS is kept"),
    (0x175, 0x1111_2222_3333, "SYSENTER_ESP is kept"),
    (0x176, 0x2222_3333_4444, "SYSENTER_EIP is kept"),
    (0xC000_0081, 0x0008_0010_0000_0000, "STAR is kept"),
    (0xC000_0082, 0x3333_4444_5555, "LSTAR is kept"),
    (0xC000_0083, 0x4444_5555_6666, "CSTAR is kept"),
    (0xC000_0084, 0x0001_0203, "SFMASK is kept"),
    (0xC000_0102, 0x5555_6666_7777, "kernel GS base is kept"),
    (0x277, 0x0007_0406_0007_0506, "PAT is kept"),
];
/// Registers that INIT clears.
const CLEARED_MSRS: [(u32, &str); 3] =
    [(0xC000_0080, "EFER is 0"), (0xC000_0100, "FS base is 0"), (0xC000_0101, "GS base is 0")];

/// Pairs of doublewords that the code notes, in its order.
const NOTED_MSRS: usize = KEPT_MSRS.len() + CLEARED_MSRS.len();
/// Where in the page the list of them lies.
const MSR_LIST: u64 = 0xE00;

global_asm!(
    r#"
    .section .rodata.init, "a", @progbits
    .code16
init_code:
    mov ax, ds
    mov cs:[0xF04], ax
    mov ax, 0xA00
    mov ds, ax
    mov [15 * 4], ebx
    mov [16 * 4], esi
    mov eax, cr0
    mov [1 * 4], eax
    mov eax, cr2
    mov [2 * 4], eax
    mov eax, cr3
    mov [3 * 4], eax
    mov eax, cr4
    mov [4 * 4], eax
    mov eax, dr0
    mov [5 * 4], eax
    mov eax, dr1
    mov [6 * 4], eax
    mov eax, dr2
    mov [7 * 4], eax
    mov eax, dr3
    mov [8 * 4], eax
    mov eax, dr6
    mov [9 * 4], eax
    mov eax, dr7
    mov [10 * 4], eax
    xor eax, eax
    mov ax, cs
    mov [12 * 4], eax
    mov ax, cs:[0xF04]
    mov [13 * 4], eax
    mov ax, ss
    mov [14 * 4], eax
    mov ax, 0xA00
    mov ss, ax
    mov sp, 0xFF0
    pushfd
    pop dword ptr [11 * 4]

    mov si, {msr_list}
    mov di, {msrs_at}
    mov bp, {msrs}
2:  mov ecx, cs:[si]
    rdmsr
    mov [di], eax
    mov [di + 4], edx
    add si, 4
    add di, 8
    dec bp
    jnz 2b

    mov eax, 1
    cpuid
    mov eax, cr4
    or eax, 0x200           // CR4.OSFXSR
    test ecx, {xsave}
    jz 3f
    or eax, 0x40000         // CR4.OSXSAVE
3:  mov cr4, eax
    fxsave [{fx_at}]
    test eax, 0x40000
    jz 4f
    xor ecx, ecx
    xgetbv
    mov [17 * 4], eax
4:  mov dword ptr [0], 1
5:  cli
    hlt
    jmp 5b
    .align 4
init_msrs:
    .long 0x174, 0x175, 0x176, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102, 0x277
    .long 0xC0000080, 0xC0000100, 0xC0000101
init_end:
    .code64
    .previous
    "#,
    msr_list = const MSR_LIST,
    msrs_at = const MSRS_AT,
    msrs = const NOTED_MSRS,
    fx_at = const FX_AT,
    xsave = const XSAVE,
);

unsafe extern "C" {
    static init_code: u8;
    static init_msrs: u8;
    static init_end: u8;
}

fn note(note: Note) -> u64 {
    // SAFETY: RAM that only this test uses.
    u64::from(unsafe { ((NOTES_AT + note as u64 * 4) as *const u32).read_volatile() })
}

fn msr(index: usize) -> u64 {
    // SAFETY: as above.
    unsafe { ((NOTES_AT + MSRS_AT + index as u64 * 8) as *const u64).read_volatile() }
}

fn fx(offset: u64) -> u64 {
    // SAFETY: as above.
    unsafe { ((NOTES_AT + FX_AT + offset) as *const u64).read_volatile() }
}

/// Starts the CPU at the code that notes everything.
fn start(machine: &Machine, apic_id: u32) -> Result<(), Error> {
    let code = &raw const init_code;
    let (list, end) = (&raw const init_msrs, &raw const init_end);
    // SAFETY: two pages of RAM that nobody uses, mapped one to one; CPU 1 holds nothing that others wait for.
    unsafe {
        core::ptr::write_bytes(NOTES_AT as *mut u8, 0x5A, FX_AT as usize);
        core::ptr::write_bytes((NOTES_AT + FX_AT) as *mut u8, 0, 512);
        (NOTES_AT as *mut u32).write_volatile(0);
        core::ptr::copy_nonoverlapping(code, PAGE as *mut u8, list as usize - code as usize);
        core::ptr::copy_nonoverlapping(list, (PAGE + MSR_LIST) as *mut u8, end as usize - list as usize);
        apic::send_init(apic_id);
        let started = partita_rt::rdtsc();
        while partita_rt::rdtsc() - started < machine.clocks.tsc_hz / 100 {}
        apic::send_startup(apic_id, (PAGE >> 12) as u8);
    }
    wait_until(1, || note(Note::Done) == 1)
}

/// What holds after a reset and an INIT alike.
fn common(claims: &mut Claims) {
    // CD and NW are set by a reset, and an INIT leaves them alone.
    claims.equal("CR0 is as documented", note(Note::Cr0) & !(0b11 << 29), 0x10);
    for (what, text) in [
        (Note::Cr2, "CR2 is 0"),
        (Note::Cr3, "CR3 is 0"),
        (Note::Cr4, "CR4 is 0"),
        (Note::Dr0, "DR0 is 0"),
        (Note::Dr1, "DR1 is 0"),
        (Note::Dr2, "DR2 is 0"),
        (Note::Dr3, "DR3 is 0"),
        (Note::Ds, "DS is 0"),
        (Note::Ss, "SS is 0"),
        (Note::Ebx, "EBX is 0"),
        (Note::Esi, "ESI is 0"),
    ] {
        claims.equal(text, note(what), 0);
    }
    claims.equal("DR6 is clear", note(Note::Dr6), 0xFFFF_0FF0);
    claims.equal("DR7 is clear", note(Note::Dr7), 0x400);
    claims.equal("EFLAGS are clear", note(Note::Flags) & !0b1000_1101_0100, 2);
    claims.equal("CS is that of the start-up page", note(Note::Cs), CODE_SELECTOR);
    for (index, (_, text)) in CLEARED_MSRS.iter().enumerate() {
        claims.equal(text, msr(KEPT_MSRS.len() + index), 0);
    }
}

/// What CPU 1 writes where an INIT must not touch it, and where it must.
fn mark() -> ! {
    let area = [PATTERN, !PATTERN];
    // SAFETY: registers that no Rust code uses, or that this CPU needs no longer; it takes no exceptions from here on.
    unsafe {
        for (msr, value, _) in KEPT_MSRS {
            write_msr(msr, value);
        }
        asm!(
            "mov rax, cr4", "or rax, 0x200", "mov cr4, rax",
            "movdqu xmm0, [{0}]", "movdqu xmm15, [{0}]", "movq mm3, [{0}]", "ldmxcsr [{1}]",
            "mov dr0, {2}", "mov dr1, {2}", "mov dr2, {2}", "mov dr3, {2}", "mov cr2, {2}",
            in(reg) area.as_ptr(), in(reg) &raw const MXCSR_MARK, in(reg) 0x1234_5678_u64, out("rax") _,
        );
    }
    MARKED.store(1, core::sync::atomic::Ordering::Release);
    loop {
        partita_rt::relax();
    }
}

static MARKED: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);
static MXCSR_MARK: u32 = 0x7F80;
const MXCSR_AT: u64 = 24;
const MM3_AT: u64 = 32 + 3 * 16;
const XMM0_AT: u64 = 160;
const PATTERN: u64 = 0x0123_4567_89AB_CDEF;

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    let mut claims = Claims::from(2800);
    let [_, peer, ..] = machine.apic_ids[..] else {
        return Err(Error::TooFewCpus { found: machine.apic_ids.len(), needed: 2 });
    };
    start(machine, peer)?;
    common(&mut claims);
    claims.equal("a fresh CPU has MXCSR as after a reset", fx(MXCSR_AT) & 0xFFFF_FFFF, 0x1F80);
    let any = (MM3_AT - 48..XMM0_AT + 256).step_by(8).fold(0, |any, offset| any | fx(offset));
    claims.equal("  and nothing in its x87 and SSE registers", any, 0);
    claims.equal("  and nothing but x87 in XCR0", note(Note::Xcr0), 1);
    for (index, (number, ..)) in KEPT_MSRS.iter().enumerate() {
        let reset = if *number == 0x277 { 0x0007_0406_0007_0406 } else { 0 };
        claims.about("  and its registers as after a reset", msr(index) == reset, msr(index), (*number).into());
    }

    cpu::start(machine, 1, mark)?;
    wait_until(1, || MARKED.load(core::sync::atomic::Ordering::Acquire) == 1)?;
    start(machine, peer)?;
    common(&mut claims);
    claims.equal("INIT keeps MXCSR", fx(MXCSR_AT) & 0xFFFF_FFFF, MXCSR_MARK.into());
    claims.equal("INIT keeps XMM0", fx(XMM0_AT), PATTERN);
    claims.equal("INIT keeps MM3", fx(MM3_AT), PATTERN);
    for (index, (_, value, text)) in KEPT_MSRS.iter().enumerate() {
        claims.equal(text, msr(index), *value);
    }
    Ok(())
}
