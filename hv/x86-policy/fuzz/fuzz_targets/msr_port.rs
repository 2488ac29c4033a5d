//! MSR, port and CPUID decisions: nothing outside the tables is open, and nothing a guest writes reaches hardware
//! with what belongs to the hypervisor.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use partita_core::system::{Identity, SerialPort};
use partita_x86_policy::cpuid::{CpuidContext, HypercallInstruction, cpuid};
use partita_x86_policy::cpuid_hidden::{Feature, HiddenFeatures};
use partita_x86_policy::msr::{MSRPM_LEN, MsrPolicy, MsrRead, MsrWrite, msrpm_intercepts};
use partita_x86_policy::msr_values::{
    EFER_SVME, apic_base_write, efer_from_vmcb, efer_writable, efer_write, lvt_write,
};
use partita_x86_policy::ports::{IOPM_LEN, IoAccess, PortDecision, PortPolicy, iopm_intercepts};
use partita_x86_policy::vmware::vmware_call;

#[derive(Arbitrary, Debug)]
struct Input {
    trap_timer_count: bool,
    console: Option<u8>,
    linux: bool,
    accesses: Vec<Access>,
}

#[derive(Arbitrary, Debug)]
struct Access {
    number: u32,
    value: u64,
    old: u64,
    host: [u32; 4],
}

/// The MSR maps without and with a trapped timer count: they are slow to make.
static MSRPMS: LazyLock<[[u8; MSRPM_LEN]; 2]> = LazyLock::new(|| {
    [false, true].map(|trap_timer_count| {
        let mut map = [0; MSRPM_LEN];
        MsrPolicy::new(trap_timer_count).fill_msrpm(&mut map);
        map
    })
});

fuzz_target!(|input: Input| {
    let console = input.console.map(|port| SerialPort::ALL[usize::from(port) % SerialPort::ALL.len()]);
    let identity = if input.linux { Identity::Linux } else { Identity::Partita };
    let (msrs, ports) = (MsrPolicy::new(input.trap_timer_count), PortPolicy::new(console, identity));
    let msrpm = &MSRPMS[usize::from(input.trap_timer_count)];
    let mut iopm = [0; IOPM_LEN];
    ports.fill_iopm(&[], &mut iopm);
    for access in input.accesses {
        let msr = access.number;
        assert_eq!(msrpm_intercepts(msrpm, msr, false), msrs.read(msr) != MsrRead::Pass);
        assert_eq!(msrpm_intercepts(msrpm, msr, true), msrs.write(msr) != MsrWrite::Pass);
        let _ = apic_base_write(access.value);
        if let Ok(write) = lvt_write(access.value) {
            assert_eq!(write.value & 0x700, 0);
        }
        let writable = efer_writable(access.host[2], access.host[3]);
        if let Ok(efer) = efer_write(efer_from_vmcb(access.old), access.value, access.old & 1 != 0, writable) {
            assert_eq!(efer & EFER_SVME, 0);
        }

        let io = IoAccess::from_svm(access.value);
        let exits = iopm_intercepts(&iopm, io.port, io.size);
        let owned = (0..io.size).all(|at| io.port.checked_add(at.into()).is_some_and(|port| ports.owns(port)));
        assert_eq!(exits, !owned);
        if exits && io.string {
            assert_eq!(ports.decide(io, access.number), PortDecision::Gp);
        }

        let context = CpuidContext {
            identity,
            hypercall: HypercallInstruction::Vmmcall,
            partition: access.host[0],
            vcpu: access.host[1],
            vcpus: access.host[2],
            apic_id: access.host[3],
            apic_id_bits: 32 - access.host[3].leading_zeros(),
            starts: 3,
            console_port: 0,
            tsc_khz: access.host[0],
            lapic_khz: access.host[1],
            host_max_basic: access.old as u32,
            host_max_extended: (access.old >> 32) as u32,
            hidden: HiddenFeatures::default().with(Feature::Rdtscp, input.trap_timer_count),
        };
        let guest = cpuid(access.number, access.value as u32, access.host, access.old, &context);
        if access.number == 0x8000_0001 {
            assert_eq!(guest[2] & 1 << 2, 0, "SVM");
        }
        let _ = vmware_call(access.number, &context);
    }
});
