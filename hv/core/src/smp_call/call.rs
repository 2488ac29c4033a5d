//! The caller's side of an SMP call.

use core::marker::PhantomData;

use super::go_round::Call;
use super::mailbox::{LOOSE_ROUND, LOOSE_SLOTS, Mailbox, NESTED, PENDING_BITS, PcpuState};
use super::reply::{Answer, CallError, CallOutcome, Deadline, PostOutcome, Reply, Stamps, put};
use super::round::{self, ROUND_PCPUS_MAX, Round};
use super::serve::Inbox;
use super::slot::{Function, Phase, Slot};
use super::target::{Ask, Settled, Target};
use crate::arch::{Arch, PcpuId};
use crate::pcpu_set::{PCPUS_MAX, PcpuSet};

/// The SMP calls of a machine, over storage that the architecture owns.
#[derive(Debug)]
pub struct SmpCalls<'a, A> {
    pub(super) mailboxes: &'a [Mailbox],
    /// Row by row, one for each target, and in it one slot for each caller.
    slots: &'a [Slot],
    /// One for each caller, on a machine of at most [`ROUND_PCPUS_MAX`] pCPUs.
    rounds: &'a [Round],
    /// All that there are.
    all: PcpuSet,
    arch: PhantomData<fn() -> A>,
}

impl<A> Clone for SmpCalls<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for SmpCalls<'_, A> {}

impl<'a, A: Arch> SmpCalls<'a, A> {
    /// How many slots a machine of so many pCPUs needs. It needs a mailbox for each pCPU.
    pub const fn slots_for(pcpus: usize) -> usize {
        pcpus * pcpus
    }

    /// How many rounds it needs.
    pub const fn rounds_for(pcpus: usize) -> usize {
        if pcpus <= ROUND_PCPUS_MAX { pcpus } else { 0 }
    }

    /// SMP calls among as many pCPUs as there are mailboxes, at most [`PCPUS_MAX`], all offline. The storage is new or
    /// zeroed. `None` if there are not [`Self::slots_for`] them slots, and [`Self::rounds_for`] them rounds.
    pub const fn new(mailboxes: &'a [Mailbox], slots: &'a [Slot], rounds: &'a [Round]) -> Option<Self> {
        let count = mailboxes.len();
        if count > PCPUS_MAX || slots.len() != Self::slots_for(count) || rounds.len() != Self::rounds_for(count) {
            return None;
        }
        Some(Self { mailboxes, slots, rounds, all: PcpuSet::first(count), arch: PhantomData })
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

    /// Where the call of `caller` to `target` is, for anyone to see: its round if the target has not ended that, else the last
    /// by its slot.
    pub fn phase(&self, target: PcpuId, caller: PcpuId) -> Option<Phase> {
        let slot = self.inbox(target)?.slots.get(caller.index()).map(Slot::phase);
        match self.rounds.get(caller.index()).map(|round| round.stands(target.index())) {
            Some((true, _)) => Some(Phase::Posted),
            Some((_, true)) => Some(Phase::Running),
            _ => slot,
        }
    }

    /// What a pCPU needs to serve its calls without looking anything up: taken once, used on each exit.
    pub fn inbox(&self, pcpu: PcpuId) -> Option<Inbox<'a, A>> {
        let count = self.pcpus();
        let first = pcpu.index().checked_mul(count)?;
        let slots = self.slots.get(first..first.checked_add(count)?)?;
        let few_slots = if count <= PENDING_BITS { slots } else { &[] };
        Some(Inbox { mailbox: self.mailbox(pcpu)?, slots, few_slots, rounds: self.rounds, arch: PhantomData })
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
    /// call has asked can be [`Reply::Busy`] for it.
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
        // One body for whatever is done with the replies, which is when nobody waits any more.
        self.call_all(targets, function, argument, deadline, &mut on_reply)
    }

    #[inline(never)]
    fn call_all(
        &self,
        targets: &PcpuSet,
        function: Function,
        argument: u64,
        deadline: Deadline,
        on_reply: &mut dyn FnMut(PcpuId, &Reply),
    ) -> Result<CallOutcome, CallError> {
        let few = targets.only_low_word().filter(|few| *few != 0 && few & !self.all.low_word() == 0);
        let (me, posted) =
            if few.is_some() { self.caller_of_one(Some(deadline)) } else { self.caller(targets, Some(deadline)) }?;
        if let Some(all) = few
            && let Some(round) = self.rounds.get(me.index())
            && let Some(mailbox) = self.mailbox(me)
            && let asked = all & !round::bit(me.index())
            && let Some(kicks) = self.kicks_of_round(me, mailbox, round, asked)
        {
            return Ok(self.go_round(
                me,
                Call { mailbox, round, asked, all, kicks, function, argument, posted, deadline },
                on_reply,
            ));
        }
        let ask = Ask { function, argument, awaited: true, posted };
        Ok(self.call_each(me, targets, &ask, deadline, on_reply))
    }

    /// The same, each target by its slot and with a kick of its own.
    #[inline(never)]
    fn call_each(
        &self,
        me: PcpuId,
        targets: &PcpuSet,
        ask: &Ask,
        deadline: Deadline,
        on_reply: &mut dyn FnMut(PcpuId, &Reply),
    ) -> CallOutcome {
        // Those who were not asked are few, if any.
        let (mut others, mut busy) = (PcpuSet::EMPTY, PcpuSet::EMPTY);
        for target in targets.iter().filter_map(|pcpu| self.other(me, pcpu)) {
            if let Err(reply) = self.ask(me, &target, ask) {
                not_asked(target.pcpu, reply, &mut others, &mut busy);
            }
        }
        let asked = targets.difference(&others);
        // The others are at work already.
        let own = targets.contains(me).then(|| self.nested(me, || run_here::<A>(ask.function, ask.argument)));
        let mut gone = PcpuSet::EMPTY;
        let expired = self.wait(me, &asked, deadline, &mut gone);
        let mut outcome = CallOutcome { ended: A::now(), ..CallOutcome::default() };

        for pcpu in targets {
            let reply = match (own, self.target(me, pcpu)) {
                (Some(own), _) if pcpu == me => Reply::Answered(own),
                (_, Some(target)) if asked.contains(pcpu) => self.collect(me, &target, expired && !gone.contains(pcpu)),
                _ if busy.contains(pcpu) => Reply::Busy,
                _ => Reply::Unreachable,
            };
            outcome.note(pcpu, &reply);
            on_reply(pcpu, &reply);
        }
        outcome
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
        let (me, posted) = self.caller_of_one(Some(deadline))?;
        if target == me {
            return Ok(Reply::Answered(run_here::<A>(function, argument)));
        }
        let target = self.target(me, target).ok_or(CallError::NoSuchPcpu { pcpu: target, count: self.pcpus() })?;
        if let Err(reply) = self.ask(me, &target, &Ask { function, argument, awaited: true, posted }) {
            return Ok(reply);
        }
        let mut expired = false;
        while target.settle(expired) == Settled::No {
            expired = self.wait_a_turn(me, deadline);
        }
        Ok(self.collect(me, &target, expired))
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
        let (me, posted) = self.caller(targets, None)?;
        let ask = Ask { function, argument, awaited: false, posted };
        let mut outcome = PostOutcome::default();
        self.has_loose_slots(me);
        for target in targets.iter().filter_map(|pcpu| self.other(me, pcpu)) {
            let set = match self.ask(me, &target, &ask) {
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

    /// Checks what can be checked before anyone is asked. Returns the caller, and the time.
    #[inline(always)]
    fn caller(&self, targets: &PcpuSet, deadline: Option<Deadline>) -> Result<(PcpuId, u64), CallError> {
        if targets.is_empty() {
            return Err(CallError::EmptySet);
        }
        let beyond = targets.difference(&self.all);
        if !beyond.is_empty() {
            let no_such = |pcpu| CallError::NoSuchPcpu { pcpu, count: self.pcpus() };
            return Err(beyond.iter().next().map_or(CallError::EmptySet, no_such));
        }
        self.caller_of_one(deadline)
    }

    #[inline(always)]
    fn caller_of_one(&self, deadline: Option<Deadline>) -> Result<(PcpuId, u64), CallError> {
        if A::in_nmi_context() {
            return Err(CallError::NmiContext);
        }
        let now = A::now();
        if let Some(deadline) = deadline
            && deadline.has_passed(now)
        {
            return Err(CallError::DeadlinePassed { deadline, now });
        }
        let me = A::pcpu();
        if me.index() >= self.pcpus() {
            return Err(CallError::NoSuchPcpu { pcpu: me, count: self.pcpus() });
        }
        Ok((me, now))
    }

    #[inline]
    pub(super) fn target(&self, me: PcpuId, pcpu: PcpuId) -> Option<Target<'a>> {
        let mailbox = self.mailboxes.get(pcpu.index())?;
        let slot = self.slots.get(pcpu.index() * self.pcpus() + me.index())?;
        Some(Target { pcpu, mailbox, slot })
    }

    /// Posts to one target's slot and kicks; `Err` says why not.
    #[inline(always)]
    fn ask(&self, me: PcpuId, target: &Target<'_>, ask: &Ask) -> Result<(), Reply> {
        if self.mailbox(me).is_some_and(|own| own.loose() & LOOSE_ROUND != 0) && self.is_left(me, target.pcpu) {
            return Err(Reply::Busy);
        }
        target.ask::<A>(me, ask)
    }

    /// Notes that a call to a slot of this caller's may outlast its wait for it.
    fn has_loose_slots(&self, me: PcpuId) {
        if let Some(own) = self.mailbox(me) {
            own.set_loose(own.loose() | LOOSE_SLOTS);
        }
    }

    /// Collects what a target's slot says, and notes if that is not the end of it.
    #[inline(always)]
    fn collect(&self, me: PcpuId, target: &Target<'_>, expired: bool) -> Reply {
        let reply = target.collect::<A>(expired);
        if reply == Reply::LateRunning {
            self.has_loose_slots(me);
        }
        reply
    }

    /// Whether an online target has not ended what it was asked in this pCPU's round.
    #[cold]
    fn is_left(&self, me: PcpuId, target: PcpuId) -> bool {
        let left = self.rounds.get(me.index()).map_or(0, Round::left);
        left & round::bit(target.index()) != 0 && self.state(target) == PcpuState::Online
    }

    /// The target, if it is another one than this pCPU.
    fn other(&self, me: PcpuId, pcpu: PcpuId) -> Option<Target<'a>> {
        if pcpu == me { None } else { self.target(me, pcpu) }
    }

    /// Waits until all that were asked have settled; returns whether the deadline has come, and notes who retired before. One
    /// after the other: the wait is over when the last one has settled, whichever that is, and all settle when the deadline
    /// has come.
    #[inline(always)]
    fn wait(&self, me: PcpuId, asked: &PcpuSet, deadline: Deadline, gone: &mut PcpuSet) -> bool {
        let mut expired = false;
        for target in asked.iter().filter_map(|pcpu| self.other(me, pcpu)) {
            loop {
                match target.settle(expired) {
                    Settled::No => expired = self.wait_a_turn(me, deadline),
                    Settled::Over => break,
                    Settled::Unreachable => break note_gone(target.pcpu, gone),
                }
            }
        }
        expired
    }

    /// [`Self::handle_smp_call`], kept apart so that a wait in which nobody calls this pCPU prepares nothing for it.
    #[cold]
    #[inline(never)]
    fn serve_others(&self, me: PcpuId, now: u64) {
        self.nested(me, || {
            self.handle_smp_call(now);
        });
    }

    /// Runs something amid a call of this pCPU: what it calls in turn goes by slots, which tell who is busy.
    fn nested<T>(&self, me: PcpuId, run: impl FnOnce() -> T) -> T {
        let Some(own) = self.mailbox(me) else { return run() };
        let before = own.loose() & NESTED;
        own.set_loose(own.loose() | NESTED);
        let result = run();
        own.set_loose(own.loose() & !NESTED | before);
        result
    }

    /// One turn of a wait: serves what is asked of this pCPU, so that callers who call each other both get their answer.
    /// `true` if the deadline has come.
    #[inline(always)]
    pub(super) fn wait_a_turn(&self, me: PcpuId, deadline: Deadline) -> bool {
        let now = A::now();
        if self.has_pending(me) {
            self.serve_others(me, now);
        }
        A::relax();
        deadline.has_passed(now)
    }
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
pub(super) fn run_here<A: Arch>(function: Function, argument: u64) -> Answer {
    let run = A::now();
    let result = function(argument);
    let done = A::now();
    Answer { result, stamps: Stamps { posted: run, kicked: run, entered: run, run, done }, seen: done }
}
