//! Quick exits: those that a guest has often are handled by a few dozen instructions of assembly, with four of its registers
//! saved. They decide nothing: what they give to a guest, or let it do, was worked out by the policy when the vCPU was made
//! ([`super::frame::Quick`]), or is one comparison with what it always allows. Whatever is not as they expect it, they leave, before they
//! have changed anything, to the [common exit](super::common) of that kind, or to [`Vcpu::on_exit`](super::Vcpu::on_exit), which handles every exit,
//! these too.
//!
//! | exit | quick if |
//! |---|---|
//! | CPUID | leaf 0, which programs execute for its serialisation |
//! | hypercall | the one that does nothing, by the kernel |
//! | RDMSR | APIC_BASE |
//! | WRMSR | the ICR, a fixed interrupt to one own vCPU (`partita_x86_policy::icr`) |
//! | OUT | one byte to port 0x80, and no breakpoint is set |
//! | kick | only SMP calls were made |
//!
//! and, but for the kick, nobody asks anything of this pCPU; and the guest is not stepped.
//!
//! The pieces that both vendors have are here, as text for `naked_asm!`. In all of them RSI is the first time-stamp after the exit, and the
//! stack pointer is at the guest's RDI in the frame. Local labels: 2 is the way back into the guest, 5 the way to
//! [`Vcpu::on_exit`](super::Vcpu::on_exit) with nothing done, 6 where somebody asks something, 7 where an SMP call left more to do; 20 to 24 are the
//! quick exits, 25, 26, 27 and 35 the common ones, 28 and 36 what follows these, 29 where they have something asked; 30 and 31 lie in [`count`].

use partita_core::smp_call::Inbox;

use crate::arch::X86;

/// Saves four registers, and stamps.
macro_rules! save_and_stamp {
    () => {
        "push rdx
        rdtsc
        push rcx
        push rsi
        push rdi
        shl rdx, 32
        lea rsi, [rax + rdx]"
    };
}

/// Restores what [`save_and_stamp`] saves.
macro_rules! restore {
    () => {
        "pop rdi
        pop rsi
        pop rcx
        pop rdx"
    };
}

/// Saves the rest of the registers, behind the first four: all is saved then, and the stack pointer is the frame.
macro_rules! save_rest {
    () => {
        "push r8
        push r9
        push r10
        push r11
        push rbx
        push r15
        push r14
        push r13
        push r12
        push rbp
        mov rdi, rsp"
    };
}

/// Calls the handler of a [common exit](super::common), `$handler`, behind [`save_and_stamp`], with the registers saved that it may
/// change, and RBX. The frame has places for the others, whose values nobody looks at. [`after_common`] follows, or a jump to it or into it.
macro_rules! call_common {
    ($handler:literal) => {
        concat!(
            "mov [rsp + {entered}], rsi
            push r8
            push r9
            push r10
            push r11
            push rbx
            sub rsp, {unsaved}
            mov rdi, [rsp + {vcpu}]
            mov rsi, rsp
            call ",
            $handler
        )
    };
}

/// What follows a handler of [`call_common`] that may have asked something of its own vCPU: this is left to `{on_news}`. Then
/// 36, what follows any: the exit is recorded.
macro_rules! after_common {
    ($traced:ident) => {
        concat!(
            "mov rcx, [rsp + {requests_from_frame}]
            cmp dword ptr [rcx], 0
            jne 29f
            36:
            add rsp, {unsaved}
            pop rbx
            pop r11
            pop r10
            ",
            record_handled!($traced),
            "
            29:
            add rsp, {unsaved}
            pop rbx
            pop r11
            pop r10
            pop r9
            pop r8
            mov rsi, rax
            ",
            save_rest!(),
            "
            call {on_news}"
        )
    };
}

/// The [common exits](super::common), from RDMSR on, whose label is the vendor's.
macro_rules! common_exits {
    ($traced:ident) => {
        concat!(
            call_common!("{on_msr_read}"),
            "
            jmp 36f
            35:
            ",
            call_common!("{on_msr_write}"),
            "
            jmp 28f
            26:
            ",
            call_common!("{on_cpuid}"),
            "
            jmp 36f
            27:
            ",
            call_common!("{on_io}"),
            "
            28:
            ",
            after_common!($traced)
        )
    };
}

/// Records an exit of which RAX and RDX are the [`Handled`](super::common::Handled), with R9 and R8 on the stack. Goes back to 2.
macro_rules! record_handled {
    (traced) => {
        concat!(
            "mov r8, rax
            mov r9, rdx
            mov rsi, [rsp + {entered} + 16]
            rdtsc
            shl rdx, 32
            or rax, rdx
            sub rax, rsi
            mov rdi, [rsp + {ring} + 16]
            mov rdx, [rdi + {commit}]
            mov rcx, [rsp + {ring_mask} + 16]
            and rcx, rdx
            mov [rdi + rcx + {kind_arg}], r8d
            mov [rdi + rcx + {sequence}], edx
            mov [rdi + rcx + {time}], rsi
            mov [rdi + rcx + {ticks}], rax
            mov [rdi + rcx + {detail}], r9
            add rdx, {slot_len}
            mov [rdi + {commit}], rdx
            shr r8, 32
            imul rdi, r8, {histogram_len}
            add rdi, [rsp + {histograms} + 16]
            pop r9
            pop r8
            ",
            count!("0")
        )
    };
    (untraced) => {
        "pop r9
        pop r8
        jmp 2b
        /* {histogram_len} */"
    };
}

/// Restores what [`save_rest`] saves.
macro_rules! restore_rest {
    () => {
        "pop rbp
        pop r12
        pop r13
        pop r14
        pop r15
        pop rbx
        pop r11
        pop r10
        pop r9
        pop r8"
    };
}

/// Goes to 6 if a call is marked, to 5 if something else is asked. With NMIs held back, or with each of them ending the next entry: whoever
/// asks later kicks.
macro_rules! look_for_news {
    () => {
        "mov rax, [rsp + {marks}]
        cmp qword ptr [rax], 0
        jne 6f
        mov rax, [rsp + {requests}]
        cmp dword ptr [rax], 0
        jne 5f"
    };
}

/// Serves the calls that are marked, by [`serve_kick`], and goes to 7 if anything else is asked then. `call` is how it is called.
macro_rules! serve_calls {
    ($($call:literal),+) => {
        concat!(
            "push r8
            push r9
            push r10
            push r11
            mov [rsp + {entered_from_r11}], rsi
            mov rdi, [rsp + {inbox_from_r11}]
            ",
            $($call, "\n",)+
            "pop r11
            pop r10
            pop r9
            pop r8
            mov rax, [rsp + {requests}]
            cmp dword ptr [rax], 0
            jne 7f
            mov rsi, [rsp + {entered}]"
        )
    };
}

/// Counts the duration in RAX in the histogram at RDI plus `$histogram`, and goes back to 2.
macro_rules! count {
    ($histogram:literal) => {
        concat!(
            "mov rcx, rax
            or rcx, 1 << {bucket_bits}
            bsr rcx, rcx
            sub ecx, {bucket_bits}
            mov rdx, rax
            shr rdx, cl
            shl ecx, {bucket_bits}
            add ecx, edx
            inc dword ptr [rdi + rcx * 4 + ",
            $histogram,
            " + {buckets}]
            inc qword ptr [rdi + ",
            $histogram,
            " + {count}]
            add [rdi + ",
            $histogram,
            " + {sum}], rax
            cmp rax, [rdi + ",
            $histogram,
            " + {max}]
            ja 30f
            not rax
            cmp rax, [rdi + ",
            $histogram,
            " + {min_inverted}]
            jbe 2b
            31:
            mov [rdi + ",
            $histogram,
            " + {min_inverted}], rax
            jmp 2b
            30:
            mov [rdi + ",
            $histogram,
            " + {max}], rax
            not rax
            cmp rax, [rdi + ",
            $histogram,
            " + {min_inverted}]
            ja 31b
            jmp 2b"
        )
    };
}

/// Records an exit, counts its duration, and goes back to 2. `$detail` stores the detail at `[rdi + rcx + {detail}]`, with RSI free.
macro_rules! record {
    (traced, $event:literal, $histogram:literal, $($detail:literal),+) => {
        concat!(
            "rdtsc
            shl rdx, 32
            or rax, rdx
            sub rax, rsi
            mov rdi, [rsp + {ring}]
            mov rdx, [rdi + {commit}]
            mov rcx, [rsp + {ring_mask}]
            and rcx, rdx
            mov dword ptr [rdi + rcx + {kind_arg}], ", $event, "
            mov [rdi + rcx + {sequence}], edx
            mov [rdi + rcx + {time}], rsi
            mov [rdi + rcx + {ticks}], rax
            ", $($detail, "\n",)+ "
            add rdx, {slot_len}
            mov [rdi + {commit}], rdx
            mov rdi, [rsp + {histograms}]
            ",
            count!($histogram)
        )
    };
    // All operands have to be named.
    (untraced, $event:literal, $histogram:literal, $($detail:literal),+) => {
        concat!(
            "jmp 2b
            /* ", $event, $histogram, $($detail,)+ "{ring} {ring_mask} {commit} {kind_arg} {sequence} {time} {ticks} {detail} {slot_len}
            {histograms} {bucket_bits} {buckets} {count} {sum} {max} {min_inverted} */"
        )
    };
}

/// `naked_asm!` with the operands that all vendors have, behind their own.
macro_rules! naked_exit_asm {
    ([$($template:expr),+ $(,)?], $($operand:ident = $kind:ident $value:expr),+ $(,)?) => {
        core::arch::naked_asm!(
            $($template,)+
            $($operand = $kind $value,)+

            stepped = const RFLAGS_TF | RFLAGS_RF,
            breakpoints = const partita_x86_policy::io_breakpoint::ENABLES,
            icr = const partita_x86_policy::icr::ICR_MSR,
            not_quick = const partita_x86_policy::icr::quick::NOT_QUICK,
            to_self = const partita_x86_policy::icr::quick::TO_SELF,
            vector_min = const partita_x86_policy::icr::VECTOR_MIN,
            assert = const partita_x86_policy::icr::quick::ASSERT,
            apic_base_msr = const partita_x86_policy::msr::APIC_BASE_MSR,
            nop = const partita_abi::hypercall::NOP,
            success = const partita_abi::hypercall::SUCCESS,

            serve_kick = sym serve_kick,
            inbox_from_r11 = const place::INBOX_FROM_R11,
            entered_from_r11 = const place::ENTERED_FROM_R11,
            entered = const place::ENTERED,
            rcx = const place::RCX,
            rdx = const place::RDX,
            unsaved = const place::UNSAVED,
            vcpu = const place::VCPU_FROM_FRAME,
            requests_from_frame = const place::REQUESTS_FROM_FRAME,
            vendor = const place::VENDOR,
            marks = const place::MARKS,
            requests = const place::REQUESTS,
            leaf_0 = const place::LEAF_0,
            apic_base = const place::APIC_BASE,
            own_id = const place::OWN_ID,
            low_ids = const place::LOW_IDS,
            ring = const place::RING,
            ring_mask = const place::RING_MASK,
            histograms = const place::HISTOGRAMS,

            commit = const raw::COMMIT,
            kind_arg = const raw::SLOTS + raw::KIND_ARG,
            sequence = const raw::SLOTS + raw::SEQUENCE,
            time = const raw::SLOTS + raw::TIME,
            ticks = const raw::SLOTS + raw::FIRST,
            detail = const raw::SLOTS + raw::SECOND,
            slot_len = const raw::SLOT_LEN,
            bucket_bits = const raw::BUCKET_BITS,
            buckets = const raw::BUCKETS,
            count = const raw::COUNT,
            sum = const raw::SUM,
            max = const raw::MAX,
            min_inverted = const raw::MIN_INVERTED,
            histogram_len = const raw::HISTOGRAM_LEN,

            kick_event = const raw::exit_kind_arg(ExitReason::Kick, 0),
            rdmsr_event = const raw::exit_kind_arg(ExitReason::MsrRead, 0),
            icr_event = const raw::exit_kind_arg(ExitReason::IcrWrite, 1),
            hypercall_event = const raw::exit_kind_arg(ExitReason::Hypercall, partita_abi::hypercall::NOP as u16),
            cpuid_event = const raw::exit_kind_arg(ExitReason::Cpuid, 0),
            out_event = const raw::exit_kind_arg(ExitReason::IoOut, partita_x86_policy::ports::quick_out::PORT),
            kick = const raw::histogram(HistogramId::Exit(ExitReason::Kick)),
            rdmsr = const raw::histogram(HistogramId::Exit(ExitReason::MsrRead)),
            icr_forward = const raw::histogram(HistogramId::IcrForward),
            hypercall = const raw::histogram(HistogramId::Exit(ExitReason::Hypercall)),
            cpuid = const raw::histogram(HistogramId::Exit(ExitReason::Cpuid)),
            out = const raw::histogram(HistogramId::Exit(ExitReason::IoOut)),
        )
    };
}

/// Called for a kick that SMP calls came with: most are for these alone. An order that one of them leaves is noted as a request.
pub extern "C" fn serve_kick(inbox: &Inbox<'static, X86>, entered: u64) {
    inbox.handle_smp_call_inline(entered);
}

pub(crate) use {
    after_common, call_common, common_exits, count, look_for_news, naked_exit_asm, record, record_handled, restore,
    restore_rest, save_and_stamp, save_rest, serve_calls,
};

/// Bits of RFLAGS that make the end of an instruction more than its end.
pub const RFLAGS_TF: u64 = 1 << 8;
/// See [`RFLAGS_TF`].
pub const RFLAGS_RF: u64 = 1 << 16;
