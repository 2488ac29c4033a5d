//! SMP calls as everyone makes and serves them who is not on the exit path: one body each, whoever calls, and made here, where
//! code is made for speed.

use partita_core::arch::PcpuId;
use partita_core::pcpu_set::PcpuSet;
use partita_core::smp_call::{CallError, CallOutcome, Deadline, Function, Inbox, PostOutcome, Reply, SmpCalls};

use crate::arch::X86;

/// [`SmpCalls::smp_call_function_single`].
///
/// # Errors
/// Its.
#[inline(never)]
pub fn call_one(
    calls: &SmpCalls<'static, X86>,
    target: PcpuId,
    function: Function,
    argument: u64,
    deadline: Deadline,
) -> Result<Reply, CallError> {
    calls.smp_call_function_single(target, function, argument, deadline)
}

/// [`SmpCalls::smp_call_function`], for whom the outcome says enough.
///
/// # Errors
/// Its.
pub fn call_several(
    calls: &SmpCalls<'static, X86>,
    targets: &PcpuSet,
    function: Function,
    argument: u64,
    deadline: Deadline,
) -> Result<CallOutcome, CallError> {
    calls.smp_call_function(targets, function, argument, deadline, |_, _| {})
}

/// [`SmpCalls::smp_call_function_no_wait`].
///
/// # Errors
/// Its.
pub fn post(
    calls: &SmpCalls<'static, X86>,
    targets: &PcpuSet,
    function: Function,
    argument: u64,
) -> Result<PostOutcome, CallError> {
    calls.smp_call_function_no_wait(targets, function, argument)
}

/// [`Inbox::handle_smp_call`].
#[inline(never)]
pub fn serve(inbox: &Inbox<'static, X86>, entered: u64) {
    inbox.handle_smp_call(entered);
}
