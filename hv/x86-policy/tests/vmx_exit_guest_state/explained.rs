//! What is said of a guest that is entered no longer.

use partita_x86_policy::vmx::ept::{self, Illegal, Level, Misconfiguration};
use partita_x86_policy::vmx::exit::ExitReason;
use partita_x86_policy::vmx::explain::Explained;
use partita_x86_policy::vmx::guest_state::GuestState;

use super::states::{CPU, long, protected};

#[test]
fn a_refused_state_is_explained_by_its_rule() {
    let bad = GuestState { cr0: 0x6000_0010, ..protected() };
    let text = Explained::state(&bad, &CPU, 0).to_string();
    assert!(text.starts_with("guest CR0 is 0x60000010: "), "{text}");
    assert!(text.contains("section 27.3.1.1"), "{text}");
    assert_eq!(
        Explained::state(&long(), &CPU, 4).to_string(),
        "the VMCS link pointer is not legal (SDM vol. 3 section 27.8)"
    );
    assert!(Explained::state(&long(), &CPU, 0).to_string().starts_with("the CPU does not say why"));
}

#[test]
fn exits_without_a_handler_are_named() {
    let exit = |reason, qualification| Explained::Exit { reason: ExitReason(reason), qualification }.to_string();
    assert_eq!(exit(9, 3 << 30 | 0x28), "task switch to selector 0x28 (TaskGate), which VMX leaves undone");
    assert_eq!(exit(1 << 27 | 74, 0), "exit reason 74, bus lock, qualification 0x0");
    assert!(exit(0x7777, 1).contains("does not list"));
}

#[test]
fn an_ept_misconfiguration_is_explained_by_its_entry() {
    // Write without read.
    let entry = 0x1000 | 2;
    let found = ept::explain(0x8000, 0x1234, 39, |address| Some(if address == 0x8000 { entry } else { 0 }));
    let entry = Misconfiguration { level: Level::Pml4, address: 0x8000, entry, illegal: Illegal::WriteOnly };
    assert_eq!(found, Some(entry));
    let text = Explained::Ept { entry: found, gpa: 0x1234 }.to_string();
    assert!(text.starts_with("guest-physical address 0x1234: EPT PML4E 0x1002 at 0x8000: "), "{text}");
    assert!(Explained::Ept { entry: None, gpa: 0x1234 }.to_string().contains("0x1234; every entry"));
}
