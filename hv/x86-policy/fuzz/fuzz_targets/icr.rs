//! No sequence of ICR writes reaches a CPU outside the partition, and no sequence of the events they make leaves a
//! vCPU in a state that its requests do not explain.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use partita_x86_policy::apic_events::{Requests, RunState, VcpuAction, VcpuEvents};
use partita_x86_policy::apic_view::{ApicView, VCPUS_MAX, VcpuMask};
use partita_x86_policy::icr::{IcrAction, VECTOR_MIN, filter};

#[derive(Arbitrary, Debug)]
struct Input {
    ids: Vec<u32>,
    hardware_nmi: bool,
    writes: Vec<Write>,
}

#[derive(Arbitrary, Debug)]
struct Write {
    sender: u8,
    /// Index of an own ID to put into the destination, so that more than the refusals is met.
    own: Option<u8>,
    icr: u64,
    rip: u64,
    iret: bool,
}

fuzz_target!(|input: Input| {
    let Ok(view) = ApicView::new(&input.ids) else { return };
    let ids = view.ids();
    let mut vcpus = vec![VcpuEvents::new(RunState::Running, input.hardware_nmi); ids.len()];
    for write in input.writes {
        let own = write.own.map(|index| ids[usize::from(index) % ids.len()]);
        let icr = own.map_or(write.icr, |id| u64::from(id) << 32 | write.icr & 0xCFFF);
        let sender = usize::from(write.sender) % VCPUS_MAX;
        let action = filter(&view, sender, icr);
        let (targets, requests) = match action {
            IcrAction::Fixed { vector, targets } => {
                assert!(vector >= VECTOR_MIN);
                (targets, Requests::NONE)
            }
            IcrAction::Nmi { targets } => (targets, Requests::NMI),
            IcrAction::Init { targets } => (targets, Requests::INIT),
            IcrAction::Sipi { targets, vector } => (targets, Requests::sipi(vector)),
            IcrAction::Ignore | IcrAction::Refuse(_) => (VcpuMask::EMPTY, Requests::NONE),
        };
        for target in targets {
            let vcpu = vcpus.get_mut(target).expect("a target outside the partition");
            let waited = vcpu.run() == RunState::WaitForSipi;
            let done = match vcpu.on_request(requests, write.rip) {
                VcpuAction::StepOverIret => vcpu.on_step(),
                VcpuAction::Enter if write.iret && vcpu.intercepts_iret() => match vcpu.on_iret(write.rip) {
                    VcpuAction::StepOverIret => vcpu.on_step(),
                    other => other,
                },
                other => other,
            };
            match done {
                VcpuAction::Wait => assert!(waited || requests.init()),
                VcpuAction::Start { vector } => assert!(waited && requests.sipi_vector() == Some(vector)),
                VcpuAction::InjectNmi | VcpuAction::Enter => assert_eq!(vcpu.run(), RunState::Running),
                VcpuAction::StepOverIret | VcpuAction::Stop => panic!("{done:?}"),
            }
        }
    }
});
