//! The events: each defined once, here, for producers and decoders.
//!
//! An event is a kind (8 bits), an argument (24 bits) and two payload words. The table at the end of this file
//! says where each field lies. Kind numbers are part of the trace format: they never change.

use crate::field::FieldType;
pub use crate::field::{Field, Unit, Value};
use crate::names::{ExitReason, IcrRefusal, InterruptMode, KickKind, PolicyKind, StopCause};

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

/// The bits `low..low + width` of the argument, in place, for a field's value. A value too wide is cut.
#[inline(always)]
const fn arg_put(low: u32, width: u32, bits: u64) -> u32 {
    ((bits as u32) & (((1u64 << width) - 1) as u32)) << low
}

/// The reverse of [`arg_put`].
#[inline(always)]
const fn arg_get(low: u32, width: u32, arg: u32) -> u64 {
    ((arg >> low) as u64) & ((1u64 << width) - 1)
}

/// Defines the events. A row is `kind Name "name" { arg fields @ low, width; a = field; b = field }`.
macro_rules! events {
    ($(
        $(#[$meta:meta])*
        $kind:literal $name:ident $text:literal {
            arg: [$($(#[$fmeta:meta])* $arg:ident: $argty:ty, $low:literal, $width:literal, $argunit:ident;)*]
            a: [$($(#[$ameta:meta])* $a:ident: $aty:ty, $aunit:ident)?]
            b: [$($(#[$bmeta:meta])* $b:ident: $bty:ty, $bunit:ident)?]
        }
    )+) => {
        /// Something that happened, with what is worth knowing about it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $(
                $(#[$meta])*
                $name {
                    $($(#[$fmeta])* $arg: $argty,)*
                    $($(#[$ameta])* $a: $aty,)?
                    $($(#[$bmeta])* $b: $bty,)?
                },
            )+
        }

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
                    $(Self::$name { $($arg,)* $($a,)? $($b,)? } => Encoded {
                        kind_arg: $kind $(| (arg_put($low, $width, FieldType::to_bits($arg)) << 8))*,
                        a: 0 $(| FieldType::to_bits($a))?,
                        b: 0 $(| FieldType::to_bits($b))?,
                    },)+
                }
            }

            /// The event that these bits mean: `None` if the kind is unknown or a field has no such value.
            pub fn decode(kind: u8, arg: u32, a: u64, b: u64) -> Option<Self> {
                // A table row without fields in one of these places does not look at it.
                let _ = (arg, a, b);
                match kind {
                    $($kind => Some(Self::$name {
                        $($arg: FieldType::from_bits(arg_get($low, $width, arg))?,)*
                        $($a: FieldType::from_bits(a)?,)?
                        $($b: FieldType::from_bits(b)?,)?
                    }),)+
                    _ => None,
                }
            }

            /// Calls `visit` with each field, in the order of the table.
            pub fn for_each_field(&self, mut visit: impl FnMut(Field)) {
                match *self {
                    $(Self::$name { $($arg,)* $($a,)? $($b,)? } => {
                        $(visit(Field { name: stringify!($arg), unit: Unit::$argunit, value: FieldType::value($arg) });)*
                        $(visit(Field { name: stringify!($a), unit: Unit::$aunit, value: FieldType::value($a) });)?
                        $(visit(Field { name: stringify!($b), unit: Unit::$bunit, value: FieldType::value($b) });)?
                    })+
                }
            }
        }
    };
}

events! {
    /// A vCPU left its guest and was handled. The frame's time is the first stamp after the exit.
    16 Exit "exit" {
        arg: [
            /// Why.
            reason: ExitReason, 0, 8, Name;
            /// The low bits of what the reason is about, if it has any: a vector, a hypercall's low half, a port.
            detail16: u16, 8, 16, Hex;
        ]
        a: [
            /// From the first stamp after the exit to the last one before the record.
            ticks: u64, Ticks
        ]
        b: [
            /// What the reason is about: MSR, CPUID leaf, guest-physical address, the vendor's exit code for `Other`.
            detail: u64, Hex
        ]
    }
    /// The ICR filter let an IPI through.
    17 IcrForward "icr forward" {
        arg: [
            /// Its vector.
            vector: u8, 0, 8, Hex;
            /// To how many pCPUs it went.
            targets: u16, 8, 16, Number;
        ]
        a: [
            /// From the first stamp after the exit to the (last) physical ICR write.
            ticks: u64, Ticks
        ]
        b: [
            /// The value as the guest wrote it.
            icr: u64, Hex
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
            icr: u64, Hex
        ]
        b: []
    }
    /// A kick arrived; written by its target, after the acknowledgement. The frame's time is its first stamp after
    /// the exit.
    19 Kick "kick" {
        arg: [
            /// How it came.
            kind: KickKind, 0, 8, Name;
            /// The pCPU that sent it.
            sender: u16, 8, 16, Pcpu;
        ]
        a: [
            /// The sender's stamp before its ICR write.
            sent: u64, Tsc
        ]
        b: [
            /// From `sent` to the target's first stamp after the exit; to when it was served, if the target was out of its
            /// guest already.
            ticks: u64, Ticks
        ]
    }
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
            ticks: u64, Ticks
        ]
        b: [
            /// The lowest late pCPU, or `u64::MAX`.
            first_late: u64, Pcpu
        ]
    }
    /// A pCPU served an SMP call.
    21 SmpCallServed "smp call served" {
        arg: [
            /// Who called.
            caller: u16, 0, 16, Pcpu;
        ]
        a: [
            /// The caller's stamp when it posted the call.
            posted: u64, Tsc
        ]
        b: [
            /// How long the function ran.
            ticks: u64, Ticks
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
            icr: u64, Hex
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
            icr: u64, Hex
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
            icr: u64, Hex
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
            rip: u64, Hex
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
            memory: u64, Bytes
        ]
        b: [
            /// Where that starts, host-physical.
            hpa: u64, Hex
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
            detail: u64, Hex
        ]
        b: [
            /// Where the guest was.
            rip: u64, Hex
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
            target: u64, Hex
        ]
        b: [
            /// The value that it wrote, if any.
            value: u64, Hex
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
            ticks: u64, Ticks
        ]
        b: [
            /// Number of the sample in its row.
            index: u64, Number
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
            left: u64, Hex
        ]
        b: [
            /// Second value.
            right: u64, Hex
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
            first: u64, Hex
        ]
        b: [
            /// Second value.
            second: u64, Hex
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
            pcpus: u64, Hex
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
            hardware_id: u64, Hex
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
            gpa: u64, Hex
        ]
        b: [
            /// Its length.
            length: u64, Bytes
        ]
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
