//! The events: each defined once, here, for producers and decoders.
//!
//! An event is a kind (8 bits), an argument (24 bits) and two payload words. The table at the end of this file
//! says where each field lies. Kind numbers are part of the trace format: they never change, and a retired one is
//! not used again.

pub use crate::field::{Field, Unit, Value};
use crate::field::{FieldType, are_apart, get, put};
use crate::names::{ExitReason, IcrRefusal, InterruptMode, KickKind, PcpuStateName, PolicyKind, StopCause};

/// An event as it lies in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bits 0 to 7 the kind, bits 8 to 31 the argument.
    pub kind_arg: u32,
    /// First payload word.
    pub a: u64,
    /// Second payload word.
    pub b: u64,
}

/// Largest value of the 24-bit argument.
pub const ARG_MAX: u32 = (1 << 24) - 1;

/// Defines the events. A row is `kind Name "name" { arg: [...] a: [...] b: [...] }`: the fields of the argument and of
/// the two payload words, each as `name: type, lowest bit, width in bits, unit;`.
macro_rules! events {
    ($(
        $(#[$meta:meta])*
        $kind:literal $name:ident $text:literal {
            arg: [$($(#[$fmeta:meta])* $arg:ident: $argty:ty, $low:literal, $width:literal, $argunit:ident;)*]
            a: [$($(#[$ameta:meta])* $a:ident: $aty:ty, $alow:literal, $awidth:literal, $aunit:ident;)*]
            b: [$($(#[$bmeta:meta])* $b:ident: $bty:ty, $blow:literal, $bwidth:literal, $bunit:ident;)*]
        }
    )+) => {
        /// Something that happened, with what is worth knowing about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $(
                $(#[$meta])*
                $name {
                    $($(#[$fmeta])* $arg: $argty,)*
                    $($(#[$ameta])* $a: $aty,)*
                    $($(#[$bmeta])* $b: $bty,)*
                },
            )+
        }

        $(const _: () = {
            assert!(are_apart(&[$(($low, $width)),*], 24), concat!($text, ": fields of the argument overlap"));
            assert!(are_apart(&[$(($alow, $awidth)),*], 64), concat!($text, ": fields of a overlap"));
            assert!(are_apart(&[$(($blow, $bwidth)),*], 64), concat!($text, ": fields of b overlap"));
        };)+

        impl Event {
            /// The kinds of all events, with their names.
            pub const KINDS: &'static [(u8, &'static str)] = &[$(($kind, $text),)+];

            /// The number of this kind of event in a trace.
            #[inline(always)]
            pub const fn kind(&self) -> u8 {
                match self { $(Self::$name { .. } => $kind,)+ }
            }

            /// The name of this kind of event.
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => $text,)+ }
            }

            /// The event as it lies in a slot. A field wider than its place is cut to it.
            #[inline(always)]
            pub fn encode(self) -> Encoded {
                match self {
                    $(Self::$name { $($arg,)* $($a,)* $($b,)* } => Encoded {
                        kind_arg: $kind $(| (put($low, $width, FieldType::to_bits($arg)) as u32) << 8)*,
                        a: 0 $(| put($alow, $awidth, FieldType::to_bits($a)))*,
                        b: 0 $(| put($blow, $bwidth, FieldType::to_bits($b)))*,
                    },)+
                }
            }

            /// The event that these bits mean: `None` if the kind is unknown or a field has no such value.
            pub fn decode(kind: u8, arg: u32, a: u64, b: u64) -> Option<Self> {
                // A table row without fields in one of these places does not look at it.
                let _ = (arg, a, b);
                match kind {
                    $($kind => Some(Self::$name {
                        $($arg: FieldType::from_bits(get($low, $width, u64::from(arg)))?,)*
                        $($a: FieldType::from_bits(get($alow, $awidth, a))?,)*
                        $($b: FieldType::from_bits(get($blow, $bwidth, b))?,)*
                    }),)+
                    _ => None,
                }
            }

            /// Calls `visit` with each field, in the order of the table.
            pub fn for_each_field(&self, mut visit: impl FnMut(Field)) {
                match *self {
                    $(Self::$name { $($arg,)* $($a,)* $($b,)* } => {
                        $(visit(Field { name: stringify!($arg), unit: Unit::$argunit, value: FieldType::value($arg) });)*
                        $(visit(Field { name: stringify!($a), unit: Unit::$aunit, value: FieldType::value($a) });)*
                        $(visit(Field { name: stringify!($b), unit: Unit::$bunit, value: FieldType::value($b) });)*
                    })+
                }
            }
        }
    };
}

events! {
    /// A vCPU left its guest and was handled. The frame's time is the first stamp after the exit. Of an exit for the ICR that sent
    /// IPIs, the last stamp is usually the one behind the sending.
    16 Exit "exit" {
        arg: [
            /// Why.
            reason: ExitReason, 0, 8, Name;
            /// The low bits of what the reason is about, if it has any: a hypercall's low half, a port, to how many pCPUs an IPI
            /// went.
            detail16: u16, 8, 16, Hex;
        ]
        a: [
            /// From the first stamp after the exit to the last one before the record.
            ticks: u64, 0, 64, Ticks;
        ]
        b: [
            /// What the reason is about: MSR, the value written to the ICR, CPUID leaf, guest-physical address, what an OUT writes, the vendor's exit code
            /// for `Other`.
            detail: u64, 0, 64, Hex;
        ]
    }
    /// The ICR filter let an IPI through. No longer written: an exit for the ICR says it all.
    17 IcrForward "icr forward" {
        arg: [
            /// Its vector.
            vector: u8, 0, 8, Hex;
            /// To how many pCPUs it went.
            targets: u16, 8, 16, Number;
        ]
        a: [
            /// From the first stamp after the exit to the (last) physical ICR write.
            ticks: u64, 0, 64, Ticks;
        ]
        b: [
            /// The value as the guest wrote it.
            icr: u64, 0, 64, Hex;
        ]
    }
    /// The ICR filter refused a write.
    18 IcrRefused "icr refused" {
        arg: [
            /// Why.
            cause: IcrRefusal, 0, 8, Name;
        ]
        a: [
            /// The value as the guest wrote it.
            icr: u64, 0, 64, Hex;
        ]
        b: []
    }
    // 19 and 21 are retired: a kick and a served call in two frames, which `SmpCallServed` carries in one.
    /// An SMP call came back to its caller, or its deadline passed.
    20 SmpCall "smp call" {
        arg: [
            /// pCPUs called, at most 4095.
            targets: u16, 0, 12, Number;
            /// pCPUs that had not answered at the deadline.
            late: u16, 12, 12, Number;
        ]
        a: [
            /// From the posting to the last answer, or to the deadline.
            ticks: u64, 0, 64, Ticks;
        ]
        b: [
            /// The lowest late pCPU, or `u64::MAX`.
            first_late: u64, 0, 64, Pcpu;
        ]
    }
    /// A guest sent an NMI to one of its vCPUs: noted in the target's request word.
    22 GuestNmi "guest nmi" {
        arg: [
            /// The target's pCPU.
            target: u16, 0, 16, Pcpu;
        ]
        a: [
            /// The value as the guest wrote it.
            icr: u64, 0, 64, Hex;
        ]
        b: []
    }
    /// A guest sent INIT to one of its vCPUs: noted in the target's request word.
    23 GuestInit "guest init" {
        arg: [
            /// The target's pCPU.
            target: u16, 0, 16, Pcpu;
        ]
        a: [
            /// The value as the guest wrote it.
            icr: u64, 0, 64, Hex;
        ]
        b: []
    }
    /// A guest sent a SIPI to one of its vCPUs: noted in the target's request word.
    24 GuestSipi "guest sipi" {
        arg: [
            /// The target's pCPU.
            target: u16, 0, 16, Pcpu;
            /// Its vector: the page where the vCPU starts.
            vector: u8, 16, 8, Hex;
        ]
        a: [
            /// The value as the guest wrote it.
            icr: u64, 0, 64, Hex;
        ]
        b: []
    }
    /// An NMI was injected into the guest.
    25 NmiInjected "nmi injected" {
        arg: [
            /// Another one is pending behind it.
            another: bool, 0, 1, Name;
        ]
        a: [
            /// Where the guest was.
            rip: u64, 0, 64, Hex;
        ]
        b: []
    }
    /// A partition started.
    26 PartitionStart "partition start" {
        arg: [
            /// Which.
            partition: u16, 0, 16, Partition;
        ]
        a: [
            /// Its memory.
            memory: u64, 0, 64, Bytes;
        ]
        b: [
            /// Where that starts, host-physical.
            hpa: u64, 0, 64, Hex;
        ]
    }
    /// A vCPU's end stopped its partition, or followed it.
    27 PartitionStop "partition stop" {
        arg: [
            /// Which.
            partition: u16, 0, 16, Partition;
            /// Why.
            cause: StopCause, 16, 8, Name;
        ]
        a: [
            /// What the cause is about; see there.
            detail: u64, 0, 64, Hex;
        ]
        b: [
            /// Where the guest was.
            rip: u64, 0, 64, Hex;
        ]
    }
    /// A guest tried what its policy does not allow, and got what hardware would give.
    28 PolicyRefused "policy refused" {
        arg: [
            /// What it tried.
            kind: PolicyKind, 0, 8, Name;
        ]
        a: [
            /// The address or number that it touched; see [`PolicyKind`].
            target: u64, 0, 64, Hex;
        ]
        b: [
            /// The value that it wrote, if any.
            value: u64, 0, 64, Hex;
        ]
    }
    /// A sample that a guest measured.
    29 Sample "sample" {
        arg: [
            /// Number of the row of the suite.
            row: u32, 0, 24, Number;
        ]
        a: [
            /// The measured duration.
            ticks: u64, 0, 64, Ticks;
        ]
        b: [
            /// Number of the sample in its row.
            index: u64, 0, 64, Number;
        ]
    }
    /// A claim that a guest's test checked.
    30 Claim "claim" {
        arg: [
            /// It held.
            passed: bool, 0, 1, Name;
            /// Number of the claim, at most 2^23 - 1.
            id: u32, 1, 23, Number;
        ]
        a: [
            /// First value that the claim is about.
            left: u64, 0, 64, Hex;
        ]
        b: [
            /// Second value.
            right: u64, 0, 64, Hex;
        ]
    }
    /// A mark, for whatever its writer likes.
    31 Mark "mark" {
        arg: [
            /// Number of the mark.
            id: u32, 0, 24, Number;
        ]
        a: [
            /// First value.
            first: u64, 0, 64, Hex;
        ]
        b: [
            /// Second value.
            second: u64, 0, 64, Hex;
        ]
    }
    /// How a partition gets its interrupts; logged at boot.
    32 InterruptMode "interrupt mode" {
        arg: [
            /// Which partition.
            partition: u16, 0, 16, Partition;
            /// How.
            mode: InterruptMode, 16, 8, Name;
        ]
        a: [
            /// Its pCPUs 0 to 63, one bit each.
            pcpus: u64, 0, 64, Hex;
        ]
        b: []
    }
    /// A pCPU came up.
    33 PcpuOnline "pcpu online" {
        arg: [
            /// Which.
            pcpu: u16, 0, 16, Pcpu;
        ]
        a: [
            /// Its hardware number: the APIC ID on x86, the hart ID on RISC-V.
            hardware_id: u64, 0, 64, Hex;
        ]
        b: []
    }
    /// A guest's trace window was accepted.
    34 WindowAdded "window added" {
        arg: [
            /// Whose.
            partition: u16, 0, 16, Partition;
        ]
        a: [
            /// Where it starts, guest-physical.
            gpa: u64, 0, 64, Hex;
        ]
        b: [
            /// Its length.
            length: u64, 0, 64, Bytes;
        ]
    }
    /// A pCPU served an SMP call. The caller writes it when it has the answer, to save the target's time; the target does if
    /// nobody waited any more. [`Event::caller_and_target`] says which pCPU is which. The frame's time is `exit`: the
    /// target's first stamp after it left its guest, or the moment at which it noticed the call if it was out of its guest
    /// already when it was kicked.
    ///
    /// post <= kick <= exit <= run <= ack, so that the four legs are all five stamps. Each leg saturates at `u32::MAX`.
    35 SmpCallServed "smp call served" {
        arg: [
            /// The target, if its caller wrote this; else the caller.
            peer: u16, 0, 16, Pcpu;
            /// How the target had to be kicked.
            kind: KickKind, 16, 4, Name;
            /// Its caller wrote this, when it had the answer. Else nobody waited for it, and the target did.
            by_caller: bool, 20, 1, Name;
        ]
        a: [
            /// From the posting to the caller's stamp before the kick; 0 if the target found the call before that.
            post_to_kick: u32, 0, 32, Ticks;
            /// From there to `exit`.
            kick_to_exit: u32, 32, 32, Ticks;
        ]
        b: [
            /// From `exit` to the start of the function.
            exit_to_run: u32, 0, 32, Ticks;
            /// From there to the acknowledgement.
            run_to_ack: u32, 32, 32, Ticks;
        ]
    }
    /// A pCPU's time-stamp counter was compared with the housekeeping core's.
    36 PcpuClock "pcpu clock" {
        arg: [
            /// Which.
            pcpu: u16, 0, 16, Pcpu;
        ]
        a: [
            /// How far its time-stamp counter may be ahead of the housekeeping core's at most.
            ahead: u64, 0, 64, Ticks;
        ]
        b: [
            /// How far it may be behind at most.
            behind: u64, 0, 64, Ticks;
        ]
    }
    /// A pCPU's state changed.
    37 PcpuState "pcpu state" {
        arg: [
            /// Which.
            pcpu: u16, 0, 16, Pcpu;
            /// Its state from now on.
            state: PcpuStateName, 16, 8, Name;
        ]
        a: []
        b: []
    }
    /// A partition's memory was cleared and its image loaded.
    38 PartitionLoaded "partition loaded" {
        arg: [
            /// Which.
            partition: u16, 0, 16, Partition;
        ]
        a: [
            /// What was cleared and filled.
            bytes: u64, 0, 64, Bytes;
        ]
        b: [
            /// How long it took.
            ticks: u64, 0, 64, Ticks;
        ]
    }
    /// The loader jumped to the hypervisor. The frame's time is that of its first instructions.
    39 HypervisorEntered "hypervisor entered" {
        arg: []
        a: []
        b: []
    }
}

impl Event {
    /// The caller's and the target's pCPU of a served SMP call that is in this pCPU's ring; `None` for another event.
    pub const fn caller_and_target(&self, ring: u16) -> Option<(u16, u16)> {
        match *self {
            Self::SmpCallServed { peer, by_caller: true, .. } => Some((ring, peer)),
            Self::SmpCallServed { peer, by_caller: false, .. } => Some((peer, ring)),
            _ => None,
        }
    }
}

const _: () = {
    // Kinds below 16 belong to the ring itself.
    let mut i = 0;
    while i < Event::KINDS.len() {
        assert!(Event::KINDS[i].0 >= 16);
        i += 1;
    }
};
