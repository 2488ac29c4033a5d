//! From real mode to long mode and back, again and again: an application vCPU goes through every mode that a CPU has, leaves
//! the guest in each, and notes what it sees there.

use core::arch::{asm, global_asm};

use partita_rt::{Error, Machine, apic, wait_until};

use crate::claims::Claims;
use crate::peer::Pair;

/// Where the code goes: one page, next to the runtime's start-up page.
const PAGE: u64 = 0x9000;
/// Where in the page its tables lie: pointers for LIDT and LGDT, CR3, descriptors.
const DATA: u64 = 0xD00;
/// Where it notes what it sees, a row of words for each round.
const NOTES_AT: u64 = 0xA000;
/// Its page tables: 32-bit, PAE (two pages).
const DIRECTORY: u64 = 0xB000;
const PAE_POINTERS: u64 = 0xC000;
const PAE_DIRECTORY: u64 = 0xD000;
/// The real-mode interrupt table that it uses, when it has moved it.
const MOVED_TABLE: u64 = 0xE000;
/// What lies there is seen through other addresses: 4 MiB on with 32-bit paging, 2 MiB on with PAE.
const SEEN_AT: u64 = 0xF000;
const SEEN: u32 = 0x5EE5_EE5E;
const ROUNDS: u64 = 3;
/// Leaf 0 of CPUID: EBX begins the vendor's name.
const VENDOR_LEAF: u32 = 0;
/// Words of four bytes in a row.
const ROW: u64 = 32;

/// What is noted, by its place in a row.
#[derive(Clone, Copy)]
enum Note {
    RealCs,
    RealSegment,
    RealSoftwareInterrupt,
    RealMovedTable,
    RealDivide,
    RealCpuid,
    RealMsr,
    RealIn,
    ProtectedCr0,
    ProtectedCpuid,
    ProtectedBase,
    PagedSeen,
    PagedCpuid,
    PaeSeen,
    PaeCpuid,
    LongEfer,
    LongCpuid,
    LongHigh,
    CompatibleRex,
    CompatibleCpuid,
    CompatibleEfer,
    LeftEfer,
    BackCs,
    BackInterrupt,
    BackCpuid,
    End,
}

global_asm!(
    r#"
    .section .rodata.modes, "a", @progbits
    .code16
modes_code:
    cli
    cld
    xor edi, edi            // the row's offset
modes_real:
    xor ax, ax
    mov ss, ax
    mov sp, 0x9F00
    mov ax, {notes} / 16
    mov ds, ax

    xor eax, eax
    mov ax, cs
    mov [edi + {real_cs}], eax
    // A segment's base is sixteen times its selector.
    mov ax, {seen} / 16 - 1
    mov es, ax
    mov eax, es:[0x10]
    mov [edi + {real_segment}], eax

    // The interrupt table at 0, for a software interrupt and a division by 0.
    lidt cs:[{data}]
    xor ebx, ebx
    int 0x60
    mov [edi + {real_interrupt}], ebx
    xor ebp, ebp
    xor edx, edx
    xor ecx, ecx
    mov eax, 1
    div ecx
    mov [edi + {real_divide}], ebp
    // And moved.
    lidt cs:[{data} + 8]
    xor ebx, ebx
    int 0x61
    mov [edi + {real_moved}], ebx

    mov eax, {vendor}
    cpuid
    mov [edi + {real_cpuid}], ebx
    mov ecx, 0x1B
    rdmsr
    mov [edi + {real_msr}], eax
    mov eax, 0x12345678
    in al, 0x80
    mov [edi + {real_in}], eax

    // Protected mode.
    .byte 0x66
    lgdt cs:[{data} + 16]
    mov eax, cr0
    and eax, 0x9FFFFFFF     // caches on
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xEA
    .long {page} + modes_protected - modes_code
    .word 0x18
    .code32
modes_protected:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, {page} + 0xF00
    add edi, {notes}
    mov eax, cr0
    mov [edi + {protected_cr0}], eax
    mov eax, {vendor}
    cpuid
    mov [edi + {protected_cpuid}], ebx
    mov eax, 0x20           // data, at 0xE000
    mov es, eax
    mov eax, es:[{seen} - 0xE000]
    mov [edi + {protected_base}], eax

    // 32-bit paging.
    mov eax, cr4
    or eax, 0x10            // CR4.PSE
    mov cr4, eax
    mov eax, {directory}
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    jmp 2f
2:  mov eax, [0x400000 + {seen}]
    mov [edi + {paged_seen}], eax
    mov eax, {vendor}
    cpuid
    mov [edi + {paged_cpuid}], ebx
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax

    // PAE.
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, {pae}
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov eax, [0x200000 + {seen}]
    mov [edi + {pae_seen}], eax
    mov eax, {vendor}
    cpuid
    mov [edi + {pae_cpuid}], ebx
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax

    // Long mode, on the kernel's own tables.
    mov eax, [{page} + {data} + 24]
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    .byte 0xEA
    .long {page} + modes_long - modes_code
    .word 0x08
    .code64
modes_long:
    mov ecx, 0xC0000080
    rdmsr
    mov [rdi + {long_efer}], eax
    mov eax, {vendor}
    cpuid
    mov [rdi + {long_cpuid}], ebx
    mov rax, 0x123456789
    shr rax, 32
    mov [rdi + {long_high}], eax

    // Compatibility mode: there 0x40 is no prefix, but INC EAX.
    push 0x18
    .byte 0x68              // push
    .long {page} + modes_compatible - modes_code
    retfq
    .code32
modes_compatible:
    xor eax, eax
    .byte 0x40
    nop
    mov [edi + {compatible_rex}], eax
    mov eax, {vendor}
    cpuid
    mov [edi + {compatible_cpuid}], ebx
    mov ecx, 0xC0000080
    rdmsr
    mov [edi + {compatible_efer}], eax
    // Out of long mode, and to real mode.
    mov eax, cr0
    and eax, 0x7FFFFFFF
    mov cr0, eax
    rdmsr
    mov [edi + {left_efer}], eax
    and eax, 0xFFFFF6FF
    wrmsr
    xor eax, eax
    mov cr4, eax
    .byte 0xEA
    .long modes_16 - modes_code
    .word 0x28
    .code16
modes_16:
    mov ax, 0x30
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xFE
    mov cr0, eax
    .byte 0xEA
    .word modes_back - modes_code
    .word {page} / 16
modes_back:
    xor ax, ax
    mov ss, ax
    mov sp, 0x9F00
    mov ax, {notes} / 16
    mov ds, ax
    sub edi, {notes}
    xor eax, eax
    mov ax, cs
    mov [edi + {back_cs}], eax
    lidt cs:[{data}]
    xor ebx, ebx
    int 0x60
    mov [edi + {back_interrupt}], ebx
    mov eax, {vendor}
    cpuid
    mov [edi + {back_cpuid}], ebx
    mov dword ptr [edi + {end}], 1
    add edi, {row}
    cmp edi, {row} * {rounds}
    jb modes_real
3:  hlt
    jmp 3b

modes_interrupt:            // counts
    inc bx
    iret
modes_divide:               // a fault: the three bytes of DIV ECX are passed
    inc bp
    push bp
    mov bp, sp
    add word ptr [bp + 2], 3
    pop bp
    iret

    .align 8
modes_data:
    .word 0x3FF             // the interrupt table at 0
    .long 0
    .word 0
    .word 0x3FF             // moved
    .long {moved}
    .word 0
    .word 7 * 8 - 1         // descriptors
    .long {page} + {data} + 32
    .word 0
    .quad 0                 // CR3
    .quad 0
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
    .quad 0x00CF9B000000FFFF
    .quad 0x00409300E0001FFF
    .quad 0x00009B000000FFFF | ({page} << 16)
    .quad 0x000093000000FFFF
modes_end:
    .code64
    .previous
    "#,
    page = const PAGE,
    data = const DATA,
    notes = const NOTES_AT,
    directory = const DIRECTORY,
    pae = const PAE_POINTERS,
    moved = const MOVED_TABLE,
    seen = const SEEN_AT,
    vendor = const VENDOR_LEAF,
    row = const ROW * 4,
    rounds = const ROUNDS,
    real_cs = const at(Note::RealCs),
    real_segment = const at(Note::RealSegment),
    real_interrupt = const at(Note::RealSoftwareInterrupt),
    real_moved = const at(Note::RealMovedTable),
    real_divide = const at(Note::RealDivide),
    real_cpuid = const at(Note::RealCpuid),
    real_msr = const at(Note::RealMsr),
    real_in = const at(Note::RealIn),
    protected_cr0 = const at(Note::ProtectedCr0),
    protected_cpuid = const at(Note::ProtectedCpuid),
    protected_base = const at(Note::ProtectedBase),
    paged_seen = const at(Note::PagedSeen),
    paged_cpuid = const at(Note::PagedCpuid),
    pae_seen = const at(Note::PaeSeen),
    pae_cpuid = const at(Note::PaeCpuid),
    long_efer = const at(Note::LongEfer),
    long_cpuid = const at(Note::LongCpuid),
    long_high = const at(Note::LongHigh),
    compatible_rex = const at(Note::CompatibleRex),
    compatible_cpuid = const at(Note::CompatibleCpuid),
    compatible_efer = const at(Note::CompatibleEfer),
    left_efer = const at(Note::LeftEfer),
    back_cs = const at(Note::BackCs),
    back_interrupt = const at(Note::BackInterrupt),
    back_cpuid = const at(Note::BackCpuid),
    end = const at(Note::End),
);

unsafe extern "C" {
    static modes_code: u8;
    static modes_interrupt: u8;
    static modes_divide: u8;
    static modes_data: u8;
    static modes_end: u8;
}

/// The offset of a note in its row.
const fn at(note: Note) -> u32 {
    note as u32 * 4
}

fn note(round: u64, note: Note) -> u64 {
    // SAFETY: RAM that only this test uses.
    u64::from(unsafe { ((NOTES_AT + round * ROW * 4 + u64::from(at(note))) as *const u32).read_volatile() })
}

fn store(address: u64, value: u64) {
    // SAFETY: as above; address 0 is RAM, too.
    unsafe { asm!("mov [{}], {}", in(reg) address, in(reg) value, options(nostack, preserves_flags)) };
}

fn prepare() {
    let (code, data, end) = (&raw const modes_code, &raw const modes_data, &raw const modes_end);
    let cr3: u64;
    // SAFETY: pages of RAM that nobody uses, mapped one to one.
    unsafe {
        core::ptr::write_bytes(NOTES_AT as *mut u8, 0, (SEEN_AT + 0x1000 - NOTES_AT) as usize);
        core::ptr::copy_nonoverlapping(code, PAGE as *mut u8, data as usize - code as usize);
        core::ptr::copy_nonoverlapping(data, (PAGE + DATA) as *mut u8, end as usize - data as usize);
        asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags));
    }
    store(PAGE + DATA + 24, cr3);
    // The handlers' segments and offsets, in the table at 0 and in the one that it moves to.
    let far = |handler: *const u8| (PAGE >> 4) << 16 | (handler as u64 - code as u64);
    store(0, far(&raw const modes_divide));
    store(0x60 * 4, far(&raw const modes_interrupt));
    store(MOVED_TABLE + 0x61 * 4, far(&raw const modes_interrupt));
    // Present, writable, large: all show the first megabytes.
    store(DIRECTORY, 0x83 << 32 | 0x83);
    store(PAE_POINTERS, PAE_DIRECTORY | 1);
    store(PAE_DIRECTORY, 0x83);
    store(PAE_DIRECTORY + 8, 0x83);
    store(SEEN_AT, SEEN.into());
}

fn start(machine: &Machine, apic_id: u32) -> Result<(), Error> {
    prepare();
    // SAFETY: CPU 1 holds nothing that others wait for; the code is there.
    unsafe {
        apic::send_init(apic_id);
        let started = partita_rt::rdtsc();
        while partita_rt::rdtsc() - started < machine.clocks.tsc_hz / 100 {}
        apic::send_startup(apic_id, (PAGE >> 12) as u8);
    }
    wait_until(1, || note(ROUNDS - 1, Note::End) == 1)
}

/// The claims.
pub(crate) fn test(machine: &Machine) -> Result<(), Error> {
    const EFER_ACTIVE: u64 = 0xD00;
    const EFER_INACTIVE: u64 = 0x900;
    let mut claims = Claims::from(3000);
    let [_, peer, ..] = machine.apic_ids[..] else {
        return Err(Error::TooFewCpus { found: machine.apic_ids.len(), needed: 2 });
    };
    start(machine, peer)?;
    let vendor = u64::from(core::arch::x86_64::__cpuid(VENDOR_LEAF).ebx);
    // Nobody owns the port: all ones; the bare machine's has a byte of its own.
    let base = if machine.place.is_partition() { 0xFEE0_0C00 } else { 0xFEE0_0800 };
    let byte = if machine.place.is_partition() { 0xFF } else { note(0, Note::RealIn) & 0xFF };
    for round in 0..ROUNDS {
        for (what, text, expected) in [
            (Note::RealCs, "in real mode CS is that of the start-up page", PAGE >> 4),
            (Note::RealSegment, "  a segment begins at 16 times its selector", SEEN.into()),
            (Note::RealSoftwareInterrupt, "  a software interrupt goes by the table at 0", 1),
            (Note::RealMovedTable, "  or where IDTR says", 1),
            (Note::RealDivide, "  a division by 0 is a fault", 1),
            (Note::RealCpuid, "  CPUID answers", vendor),
            (Note::RealMsr, "  RDMSR answers", base),
            (Note::RealIn, "  IN changes AL alone", 0x1234_5600 | byte),
            (Note::ProtectedCr0, "in protected mode CR0 says so", 0x11),
            (Note::ProtectedCpuid, "  CPUID answers", vendor),
            (Note::ProtectedBase, "  a segment has its base", SEEN.into()),
            (Note::PagedSeen, "with 32-bit paging pages of 4 MiB translate", SEEN.into()),
            (Note::PagedCpuid, "  CPUID answers", vendor),
            (Note::PaeSeen, "with PAE pages of 2 MiB translate", SEEN.into()),
            (Note::PaeCpuid, "  CPUID answers", vendor),
            (Note::LongEfer, "in long mode EFER says so", EFER_ACTIVE),
            (Note::LongCpuid, "  CPUID answers", vendor),
            (Note::LongHigh, "  registers have 64 bits", 1),
            (Note::CompatibleRex, "in compatibility mode there are no REX prefixes", 1),
            (Note::CompatibleCpuid, "  CPUID answers", vendor),
            (Note::CompatibleEfer, "  long mode is active", EFER_ACTIVE),
            (Note::LeftEfer, "with paging off it is not active", EFER_INACTIVE),
            (Note::BackCs, "back in real mode CS is as before", PAGE >> 4),
            (Note::BackInterrupt, "  a software interrupt comes", 1),
            (Note::BackCpuid, "  CPUID answers", vendor),
        ] {
            claims.equal(text, note(round, what), expected);
        }
    }
    let pair = Pair::start(machine)?;
    pair.call(|| ())?;
    claims.holds("it can be started anew after that", true);
    Ok(())
}
