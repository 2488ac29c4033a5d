//! The caller's side of an SMP call.

use core::marker::PhantomData;

use super::mailbox::{Mailbox, PENDING_BITS, PcpuState};
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

/// How the wait for a target stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    /// It goes on.
    No,
    /// It is over.
    Over,
    /// It is over because the target serves no longer, whatever it does until the wait for others is over.
    Unreachable,
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
        self.slot.note_kick(A::kick_note(self.pcpu), A::now());
        A::arch_smp_call_kick_pcpu(self.pcpu);
        Ok(())
    }

    /// How the wait stands. Withdraws a call that its target will not begin in time: because the deadline has come
    /// (`expired`), or because the target serves no longer.
    #[inline]
    fn settle(&self, expired: bool) -> Settled {
        match self.slot.phase() {
            Phase::Idle | Phase::Done => Settled::Over,
            Phase::Posted if !expired && !self.is_online() && self.slot.withdraw() => Settled::Unreachable,
            // If the withdrawal fails, the target has just begun, even one that came back just now.
            Phase::Posted if expired => {
                self.slot.withdraw();
                Settled::Over
            }
            // One that has stopped for a fault will not finish it.
            Phase::Running if expired || self.mailbox.state() == PcpuState::Stopped => Settled::Over,
            Phase::Posted | Phase::Running => Settled::No,
        }
    }

    /// Ends the wait for a call that has settled, and says how.
    #[inline]
    fn collect<A: Arch>(&self, expired: bool) -> Reply {
        let kick_note = self.slot.kick_note();
        let reply = match self.slot.end_wait() {
            Ended::Answered(mut answer) => {
                answer.seen = A::now();
                A::smp_call_answered(self.pcpu, kick_note, &answer.stamps);
                return Reply::Answered(answer);
            }
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

    /// Publishes that this pCPU is out of service after a fault of its own. It serves nothing any more: the state of things
    /// here is not to be trusted.
    pub fn stop_serving(&self) {
        if let Some(mailbox) = self.mailboxes.get(A::pcpu().index()) {
            mailbox.set_state(PcpuState::Stopped);
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
        let few_slots = if count <= PENDING_BITS { slots } else { &[] };
        Some(Inbox { mailbox: self.mailbox(pcpu)?, slots, few_slots, arch: PhantomData })
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
        // Those who were not asked are few, if any.
        let (mut others, mut busy) = (PcpuSet::EMPTY, PcpuSet::EMPTY);
        self.for_each_target(me, targets, |target| {
            if let Err(reply) = target.ask::<A>(me, function, argument, true) {
                not_asked(target.pcpu, reply, &mut others, &mut busy);
            }
        });
        let asked = targets.difference(&others);
        // The others are at work already.
        let own = targets.contains(me).then(|| run_here::<A>(function, argument));
        let (expired, gone) = self.wait(me, inbox, &asked, deadline);
        let mut outcome = CallOutcome { ended: A::now(), ..CallOutcome::default() };

        for pcpu in targets {
            let reply = match (own, self.target(me, pcpu)) {
                (Some(own), _) if pcpu == me => Reply::Answered(own),
                (_, Some(target)) if asked.contains(pcpu) => target.collect::<A>(expired && !gone.contains(pcpu)),
                _ if busy.contains(pcpu) => Reply::Busy,
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
        while target.settle(expired) == Settled::No {
            expired = wait_a_turn(inbox, deadline);
        }
        Ok(target.collect::<A>(expired))
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
        self.for_each_target(me, targets, |target| {
            let set = match target.ask::<A>(me, function, argument, false) {
                Ok(()) => &mut outcome.accepted,
                Err(Reply::Unreachable) => &mut outcome.unreachable,
                Err(_) => &mut outcome.busy,
            };
            put(set, target.pcpu);
        });
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
        if targets.last().is_some_and(|last| last.index() >= count) {
            let beyond = targets.difference(&PcpuSet::first(count)).iter().next();
            return beyond.map_or(Err(CallError::EmptySet), |pcpu| Err(CallError::NoSuchPcpu { pcpu, count }));
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

    /// Goes to the members of `targets` other than this pCPU.
    #[inline(always)]
    fn for_each_target(&self, me: PcpuId, targets: &PcpuSet, mut visit: impl FnMut(Target<'a>)) {
        targets.for_each(|pcpu| {
            if let Some(target) = self.target(me, pcpu)
                && pcpu != me
            {
                visit(target);
            }
        });
    }

    /// Waits until all that were asked have settled; returns whether the deadline has come, and who retired before. One
    /// after the other: the wait is over when the last one has settled, whichever that is, and all settle when the deadline
    /// has come.
    fn wait(&self, me: PcpuId, inbox: Inbox<'a, A>, asked: &PcpuSet, deadline: Deadline) -> (bool, PcpuSet) {
        let mut expired = false;
        let mut gone = PcpuSet::EMPTY;
        self.for_each_target(me, asked, |target| {
            loop {
                match target.settle(expired) {
                    Settled::No => expired = wait_a_turn(inbox, deadline),
                    Settled::Over => break,
                    Settled::Unreachable => break note_gone(target.pcpu, &mut gone),
                }
            }
        });
        (expired, gone)
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

/// Notes a target that was not asked, and whether it was busy.
#[cold]
fn not_asked(target: PcpuId, reply: Reply, others: &mut PcpuSet, busy: &mut PcpuSet) {
    put(others, target);
    if reply == Reply::Busy {
        put(busy, target);
    }
}

#[cold]
fn note_gone(target: PcpuId, gone: &mut PcpuSet) {
    put(gone, target);
}

/// A call to oneself.
fn run_here<A: Arch>(function: Function, argument: u64) -> Answer {
    let run = A::now();
    let result = function(argument);
    let done = A::now();
    Answer { result, stamps: Stamps { posted: run, kicked: run, entered: run, run, done }, seen: done }
}
