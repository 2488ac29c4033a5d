//! The caller's side of an SMP call.

use core::marker::PhantomData;

use super::mailbox::{Mailbox, PcpuState};
use super::reply::{Answer, CallError, CallOutcome, Deadline, PostOutcome, Reply, Stamps, put};
use super::serve::Inbox;
use super::slot::{Ended, Function, Phase, Slot};
use crate::arch::{Arch, PcpuId};
use crate::pcpu_set::{PCPUS_MAX, PcpuSet};

/// The SMP calls of a machine, over storage that the architecture owns.
#[derive(Debug)]
pub struct SmpCalls<'a, A> {
    mailboxes: &'a [Mailbox],
    /// Row by row, one for each target, and in it one slot for each caller.
    slots: &'a [Slot],
    arch: PhantomData<fn() -> A>,
}

impl<A> Clone for SmpCalls<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for SmpCalls<'_, A> {}

/// One target, as its caller sees it.
#[derive(Clone, Copy)]
struct Target<'a> {
    pcpu: PcpuId,
    mailbox: &'a Mailbox,
    slot: &'a Slot,
}

impl Target<'_> {
    #[inline]
    fn is_online(&self) -> bool {
        self.mailbox.state() == PcpuState::Online
    }

    /// Posts and kicks; `Err` says why not.
    #[inline]
    fn ask<A: Arch>(&self, me: PcpuId, function: Function, argument: u64, awaited: bool) -> Result<(), Reply> {
        if !self.is_online() {
            return Err(Reply::Unreachable);
        }
        if !self.slot.post(function, argument, awaited, A::now()) {
            return Err(Reply::Busy);
        }
        self.mailbox.mark_pending(me.index());
        self.slot.note_kick(A::now());
        A::arch_smp_call_kick_pcpu(self.pcpu);
        Ok(())
    }

    /// Whether there is nothing to wait for any more. Withdraws a call that its target will not begin in time: because
    /// the deadline has come (`expired`), or because the target serves no longer.
    #[inline]
    fn settle(&self, expired: bool) -> bool {
        match self.slot.phase() {
            Phase::Idle | Phase::Done => true,
            Phase::Running => expired,
            // If the withdrawal fails, the target has just begun, even one that came back just now.
            Phase::Posted if expired || !self.is_online() => self.slot.withdraw() || expired,
            Phase::Posted => false,
        }
    }

    /// Ends the wait for a call that has settled, and says how.
    #[inline]
    fn collect(&self, expired: bool) -> Reply {
        let reply = match self.slot.end_wait() {
            Ended::Answered(answer) => return Reply::Answered(answer),
            Ended::Withdrawn if !expired || !self.is_online() => return Reply::Unreachable,
            Ended::Withdrawn => Reply::Late,
            Ended::Running => Reply::LateRunning,
        };
        self.mailbox.count_late();
        reply
    }
}

impl<'a, A: Arch> SmpCalls<'a, A> {
    /// How many slots a machine of so many pCPUs needs. It needs a mailbox for each pCPU.
    pub const fn slots_for(pcpus: usize) -> usize {
        pcpus * pcpus
    }

    /// SMP calls among as many pCPUs as there are mailboxes, at most [`PCPUS_MAX`], all offline. The storage is new or
    /// zeroed. `None` if there are not [`Self::slots_for`] them slots.
    pub const fn new(mailboxes: &'a [Mailbox], slots: &'a [Slot]) -> Option<Self> {
        if mailboxes.len() > PCPUS_MAX || slots.len() != Self::slots_for(mailboxes.len()) {
            return None;
        }
        Some(Self { mailboxes, slots, arch: PhantomData })
    }

    /// How many pCPUs there are.
    pub const fn pcpus(&self) -> usize {
        self.mailboxes.len()
    }

    /// Prepares this pCPU to be called, and publishes that it is. Called once on each pCPU, and again when it comes
    /// back after [`Self::retire`].
    pub fn init_smp_call(&self) {
        A::arch_init_smp_call();
        if let Some(mailbox) = self.mailboxes.get(A::pcpu().index()) {
            mailbox.set_state(PcpuState::Online);
        }
    }

    /// Publishes that this pCPU serves calls no longer, and serves those it still finds. A caller that waits for a
    /// later one withdraws it at once; one that nobody waits for stays until this pCPU comes back.
    pub fn retire(&self, state: PcpuState) {
        if let Some(mailbox) = self.mailboxes.get(A::pcpu().index()) {
            mailbox.set_state(state);
            self.handle_smp_call(A::now());
        }
    }

    /// The mailbox of a pCPU: its state and its late calls, for anyone to see.
    pub fn mailbox(&self, pcpu: PcpuId) -> Option<&'a Mailbox> {
        self.mailboxes.get(pcpu.index())
    }

    /// The state of a pCPU; [`PcpuState::Offline`] if there is none of this number.
    pub fn state(&self, pcpu: PcpuId) -> PcpuState {
        self.mailbox(pcpu).map_or(PcpuState::Offline, Mailbox::state)
    }

    /// The pCPUs that serve calls.
    pub fn online(&self) -> PcpuSet {
        let mut online = PcpuSet::EMPTY;
        for pcpu in PcpuSet::first(self.pcpus()).iter().filter(|pcpu| self.state(*pcpu) == PcpuState::Online) {
            put(&mut online, pcpu);
        }
        online
    }

    /// Where the last call of `caller` to `target` is, for anyone to see.
    pub fn phase(&self, target: PcpuId, caller: PcpuId) -> Option<Phase> {
        self.inbox(target)?.slots.get(caller.index()).map(Slot::phase)
    }

    /// What a pCPU needs to serve its calls without looking anything up: taken once, used on each exit.
    pub fn inbox(&self, pcpu: PcpuId) -> Option<Inbox<'a, A>> {
        let count = self.pcpus();
        let first = pcpu.index().checked_mul(count)?;
        let slots = self.slots.get(first..first.checked_add(count)?)?;
        Some(Inbox { mailbox: self.mailbox(pcpu)?, slots, arch: PhantomData })
    }

    /// Whether `pcpu` may have calls to serve. See [`Inbox::has_pending`].
    #[inline]
    pub fn has_pending(&self, pcpu: PcpuId) -> bool {
        self.mailboxes.get(pcpu.index()).is_some_and(Mailbox::has_pending)
    }

    /// Runs what was asked of this pCPU. See [`Inbox::handle_smp_call`].
    #[inline]
    pub fn handle_smp_call(&self, entered: u64) -> u32 {
        self.inbox(A::pcpu()).map_or(0, |inbox| inbox.handle_smp_call(entered))
    }

    /// Has all `targets` run `function(argument)` and waits until they have, or the deadline comes. This pCPU may be
    /// one of them; it runs the function itself. `on_reply` is called once for each target, in ascending order, when
    /// the wait is over.
    ///
    /// While it waits, this pCPU serves calls made to it. Such a function may call in turn; a target that the outer
    /// call has asked is [`Reply::Busy`] for it.
    ///
    /// # Errors
    /// See [`CallError`]; then no target was asked.
    pub fn smp_call_function(
        &self,
        targets: &PcpuSet,
        function: Function,
        argument: u64,
        deadline: Deadline,
        mut on_reply: impl FnMut(PcpuId, &Reply),
    ) -> Result<CallOutcome, CallError> {
        let (me, inbox) = self.caller(targets, Some(deadline))?;
        let mut outcome = CallOutcome::default();
        let mut asked = PcpuSet::EMPTY;
        for target in self.targets(me, *targets) {
            match target.ask::<A>(me, function, argument, true) {
                Ok(()) => put(&mut asked, target.pcpu),
                Err(reply) => outcome.note(target.pcpu, &reply),
            }
        }
        // The others are at work already.
        let own = targets.contains(me).then(|| run_here::<A>(function, argument));
        let expired = self.wait(me, inbox, asked, deadline);

        for pcpu in targets {
            let reply = match (own, self.target(me, pcpu)) {
                (Some(own), _) if pcpu == me => Reply::Answered(own),
                (_, Some(target)) if asked.contains(pcpu) => target.collect(expired),
                _ if outcome.busy.contains(pcpu) => Reply::Busy,
                _ => Reply::Unreachable,
            };
            outcome.note(pcpu, &reply);
            on_reply(pcpu, &reply);
        }
        Ok(outcome)
    }

    /// [`Self::smp_call_function`] for one target, with less to do before the kick.
    ///
    /// # Errors
    /// See [`CallError`]; then the target was not asked.
    pub fn smp_call_function_single(
        &self,
        target: PcpuId,
        function: Function,
        argument: u64,
        deadline: Deadline,
    ) -> Result<Reply, CallError> {
        let (me, inbox) = self.caller_of_one(Some(deadline))?;
        if target == me {
            return Ok(Reply::Answered(run_here::<A>(function, argument)));
        }
        let target = self.target(me, target).ok_or(CallError::NoSuchPcpu { pcpu: target, count: self.pcpus() })?;
        if let Err(reply) = target.ask::<A>(me, function, argument, true) {
            return Ok(reply);
        }
        let mut expired = false;
        while !target.settle(expired) {
            expired = wait_a_turn(inbox, deadline);
        }
        Ok(target.collect(expired))
    }

    /// Has all `targets` run `function(argument)`, and does not wait. This pCPU may be one of them; it runs the function
    /// before this returns. A target keeps a call that it has accepted until it runs it; until then it is busy for
    /// this caller.
    ///
    /// # Errors
    /// See [`CallError`]; then no target was asked.
    pub fn smp_call_function_no_wait(
        &self,
        targets: &PcpuSet,
        function: Function,
        argument: u64,
    ) -> Result<PostOutcome, CallError> {
        let (me, _) = self.caller(targets, None)?;
        let mut outcome = PostOutcome::default();
        for target in self.targets(me, *targets) {
            let set = match target.ask::<A>(me, function, argument, false) {
                Ok(()) => &mut outcome.accepted,
                Err(Reply::Unreachable) => &mut outcome.unreachable,
                Err(_) => &mut outcome.busy,
            };
            put(set, target.pcpu);
        }
        if targets.contains(me) {
            run_here::<A>(function, argument);
            put(&mut outcome.accepted, me);
        }
        Ok(outcome)
    }

    /// Checks what can be checked before anyone is asked.
    fn caller(&self, targets: &PcpuSet, deadline: Option<Deadline>) -> Result<(PcpuId, Inbox<'a, A>), CallError> {
        if targets.is_empty() {
            return Err(CallError::EmptySet);
        }
        let count = self.pcpus();
        if let Some(pcpu) = targets.difference(&PcpuSet::first(count)).iter().next() {
            return Err(CallError::NoSuchPcpu { pcpu, count });
        }
        self.caller_of_one(deadline)
    }

    #[inline]
    fn caller_of_one(&self, deadline: Option<Deadline>) -> Result<(PcpuId, Inbox<'a, A>), CallError> {
        if A::in_nmi_context() {
            return Err(CallError::NmiContext);
        }
        if let Some(deadline) = deadline {
            let now = A::now();
            if deadline.has_passed(now) {
                return Err(CallError::DeadlinePassed { deadline, now });
            }
        }
        let me = A::pcpu();
        let inbox = self.inbox(me).ok_or(CallError::NoSuchPcpu { pcpu: me, count: self.pcpus() })?;
        Ok((me, inbox))
    }

    #[inline]
    fn target(&self, me: PcpuId, pcpu: PcpuId) -> Option<Target<'a>> {
        let mailbox = self.mailboxes.get(pcpu.index())?;
        let slot = self.slots.get(pcpu.index() * self.pcpus() + me.index())?;
        Some(Target { pcpu, mailbox, slot })
    }

    /// The members of `targets` other than this pCPU.
    fn targets(&self, me: PcpuId, targets: PcpuSet) -> impl Iterator<Item = Target<'a>> {
        targets.iter().filter(move |pcpu| *pcpu != me).filter_map(move |pcpu| self.target(me, pcpu))
    }

    /// Waits until all of `waiting` have settled; returns whether the deadline has come.
    fn wait(&self, me: PcpuId, inbox: Inbox<'a, A>, mut waiting: PcpuSet, deadline: Deadline) -> bool {
        let mut expired = false;
        loop {
            for target in self.targets(me, waiting) {
                if target.settle(expired) {
                    waiting.remove(target.pcpu);
                }
            }
            if waiting.is_empty() {
                return expired;
            }
            expired = wait_a_turn(inbox, deadline);
        }
    }
}

/// One turn of a wait: serves what is asked of this pCPU, so that callers who call each other both get their answer.
/// `true` if the deadline has come.
#[inline]
fn wait_a_turn<A: Arch>(inbox: Inbox<'_, A>, deadline: Deadline) -> bool {
    let now = A::now();
    if inbox.has_pending() {
        inbox.handle_smp_call(now);
    }
    A::relax();
    deadline.has_passed(now)
}

/// A call to oneself.
fn run_here<A: Arch>(function: Function, argument: u64) -> Answer {
    let run = A::now();
    let result = function(argument);
    let done = A::now();
    Answer { result, stamps: Stamps { posted: run, kicked: run, entered: run, run, done } }
}
