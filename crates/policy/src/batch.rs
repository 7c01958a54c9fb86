//! Sessions that ask at the same time share a forward.
//!
//! Whoever finds the model at rest computes for all who wait; those who come meanwhile wait for the next forward. Nobody waits
//! for company: where one robot asks, its requests are computed one by one.

use std::collections::BTreeMap;
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ndarray::Array3;

use crate::active::ActiveTasks;
use crate::backend::{Backend, Result};
use crate::forward::{Forward, Inputs};

/// Requests of one forward, at most: more keep the processor no busier, and all of them take memory.
const MOST: usize = 16;

/// What a session asks: a chunk of a task's expert.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) task: usize,
    pub(crate) pixel_values: Array3<f32>,
    pub(crate) input_ids: Vec<u32>,
    pub(crate) proprio: Vec<f32>,
}

/// What it gets.
#[derive(Debug)]
pub(crate) struct Answer<M> {
    pub(crate) forward: Forward<M>,
    /// What it took to write the task's weights.
    pub(crate) switch_ms: f64,
}

/// Who waits for a forward.
pub(crate) struct Queue<M> {
    state: Mutex<State<M>>,
    changed: Condvar,
}

struct State<M> {
    /// In the order in which they came.
    waiting: Vec<(u64, Arc<Request>)>,
    answers: BTreeMap<u64, Result<Answer<M>>>,
    next: u64,
    busy: bool,
}

impl<M> Default for Queue<M> {
    fn default() -> Self {
        let state = State { waiting: Vec::new(), answers: BTreeMap::new(), next: 0, busy: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<M> Queue<M> {
    /// The answer to a request, by `answer_all`, which is given this and others and says as much to each, in their order.
    ///
    /// # Errors
    /// Those of this request alone.
    pub(crate) fn answer(
        &self,
        request: Request,
        answer_all: impl FnOnce(&[Arc<Request>]) -> Vec<Result<Answer<M>>>,
    ) -> Result<Answer<M>> {
        let mut state = self.state();
        let own = state.next;
        state.next += 1;
        state.waiting.push((own, Arc::new(request)));
        loop {
            if let Some(answer) = state.answers.remove(&own) {
                return answer;
            }
            // Not among those who wait: somebody computes it. Not among the first: it is the next ones' turn.
            let mine = state.waiting.iter().take(MOST).any(|(number, _)| *number == own);
            if !state.busy && mine {
                break;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let most = MOST.min(state.waiting.len());
        let batch = state.waiting.drain(..most).collect();
        state.busy = true;
        drop(state);
        let mut turn = Turn { queue: self, own, batch };
        let requests: Vec<_> = turn.batch.iter().map(|(_, request)| Arc::clone(request)).collect();
        let answers = answer_all(&requests);
        let mut mine = None;
        for ((number, _), answer) in turn.batch.drain(..).zip(answers) {
            if number == own {
                mine = Some(answer);
            } else {
                self.state().answers.insert(number, answer);
            }
        }
        mine.unwrap_or_else(|| unreachable!("every request is answered"))
    }

    fn state(&self) -> MutexGuard<'_, State<M>> {
        // Nothing that holds the lock can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody computes. When that ends, even by a panic, the others go on: requests that have no answer wait again, but for the
/// one whose session has ended.
struct Turn<'a, M> {
    queue: &'a Queue<M>,
    own: u64,
    /// Without answers so far.
    batch: Vec<(u64, Arc<Request>)>,
}

impl<M> Drop for Turn<'_, M> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.busy = false;
        let mut waiting = take(&mut self.batch);
        waiting.retain(|(number, _)| *number != self.own);
        waiting.append(&mut state.waiting);
        state.waiting = waiting;
        drop(state);
        self.queue.changed.notify_all();
    }
}

/// Answers in the order of requests. Those of one task are computed together, the one first whose weights are in memory.
pub(crate) fn answer_all<B: Backend>(
    active: &mut ActiveTasks<B>,
    requests: &[Arc<Request>],
) -> Vec<Result<Answer<B::Matrix>>> {
    let mut tasks: Vec<usize> = Vec::new();
    for task in active.current_task().into_iter().chain(requests.iter().map(|request| request.task)) {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let mut answers: Vec<_> = requests.iter().map(|_| None).collect();
    for task in tasks {
        let of_task: Vec<_> = (0..requests.len()).filter(|&index| requests[index].task == task).collect();
        let batch: Vec<_> = of_task.iter().map(|&index| &*requests[index]).collect();
        for (index, answer) in of_task.into_iter().zip(answer_together(active, task, &batch)) {
            answers[index] = Some(answer);
        }
    }
    answers.into_iter().flatten().collect()
}

fn answer_together<B: Backend>(
    active: &mut ActiveTasks<B>,
    task: usize,
    batch: &[&Request],
) -> Vec<Result<Answer<B::Matrix>>> {
    if batch.is_empty() {
        return Vec::new();
    }
    match forward(active, task, batch) {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if batch.len() == 1 => vec![Err(error)],
        // One of them is to blame: each gets what it would get alone.
        Err(_) => batch.iter().flat_map(|request| answer_together(active, task, &[*request])).collect(),
    }
}

fn forward<B: Backend>(
    active: &mut ActiveTasks<B>,
    task: usize,
    batch: &[&Request],
) -> Result<Vec<Answer<B::Matrix>>> {
    let (_, switch_ms) = active.switch_to(task)?;
    // Expert heads of all tasks are in memory.
    let expert = active.expert_of(task);
    let inputs: Vec<_> = batch
        .iter()
        .map(|request| Inputs {
            pixel_values: request.pixel_values.view(),
            input_ids: &request.input_ids,
            proprio: &request.proprio,
        })
        .collect();
    let forwards = active.current().forward_all(&inputs, expert)?;
    Ok(forwards.into_iter().map(|forward| Answer { forward, switch_ms }).collect())
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use ndarray::Array2;

    use super::*;
    use crate::PolicyError;
    use crate::cpu::{Cpu, CpuMatrix, Precision};
    use crate::forward::{Latency, Perception};
    use skillweld_linalg::Threads;

    fn request(number: usize) -> Request {
        Request { task: number, pixel_values: Array3::zeros((0, 0, 0)), input_ids: vec![], proprio: vec![] }
    }

    /// Its action is the request's task.
    fn answer(request: &Request) -> Answer<CpuMatrix> {
        let nothing = Cpu::new(Threads::ONE, Precision::F32).upload(0, 0, &[]).unwrap();
        let nothing = Arc::new(nothing);
        let perception = Perception {
            vision_features: Arc::clone(&nothing),
            projected: nothing,
            hidden: Vec::new(),
            latency: Latency::default(),
        };
        let normalized_actions = Array2::from_elem((1, 1), request.task as f32);
        let forward = Forward { perception, normalized_actions, latency: Latency::default() };
        Answer { forward, switch_ms: 0.0 }
    }

    fn action(answer: &Answer<CpuMatrix>) -> usize {
        answer.forward.normalized_actions[[0, 0]] as usize
    }

    /// Until so many wait.
    fn until_waiting(queue: &Queue<CpuMatrix>, count: usize) {
        while queue.state().waiting.len() < count {
            thread::yield_now();
        }
    }

    #[test]
    fn who_comes_while_somebody_computes_shares_the_next_forward() {
        let queue = Queue::<CpuMatrix>::default();
        let others = MOST + 3;
        let sizes = Mutex::new(Vec::new());
        let compute = |requests: &[Arc<Request>]| {
            let mut sizes = sizes.lock().unwrap();
            if sizes.is_empty() {
                until_waiting(&queue, others);
            }
            sizes.push(requests.len());
            requests.iter().map(|request| Ok(answer(request))).collect()
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| queue.answer(request(1000), compute));
            while !queue.state().busy {
                thread::yield_now();
            }
            let rest: Vec<_> = (0..others)
                .map(|number| {
                    let (queue, compute) = (&queue, &compute);
                    (number, scope.spawn(move || queue.answer(request(number), compute)))
                })
                .collect();
            assert_eq!(action(&first.join().unwrap().unwrap()), 1000);
            for (number, thread) in rest {
                assert_eq!(action(&thread.join().unwrap().unwrap()), number);
            }
        });
        assert_eq!(*sizes.lock().unwrap(), [1, MOST, 3]);
        assert!(queue.state().answers.is_empty());
    }

    #[test]
    fn a_panic_ends_one_session_and_leaves_the_others_their_turn() {
        let queue = Queue::<CpuMatrix>::default();
        let panics = AtomicUsize::new(0);
        let compute = |requests: &[Arc<Request>]| {
            // Of a first batch of one, and of whoever computes for request 1.
            if requests[0].task == 1000 {
                until_waiting(&queue, 3);
            }
            if requests.iter().any(|request| request.task == 1) {
                panics.fetch_add(1, Ordering::Relaxed);
                panic!("a defect");
            }
            requests.iter().map(|request| Ok(answer(request))).collect()
        };
        let ask = |number: usize| catch_unwind(AssertUnwindSafe(|| queue.answer(request(number), compute)));
        let answered: Vec<_> = thread::scope(|scope| {
            let first = scope.spawn(|| ask(1000));
            while !queue.state().busy {
                thread::yield_now();
            }
            let ask = &ask;
            let rest: Vec<_> = (0..3).map(|number| scope.spawn(move || ask(number))).collect();
            assert!(first.join().unwrap().is_ok());
            rest.into_iter().map(|thread| thread.join().unwrap().is_ok()).collect()
        });
        assert!(!answered[1]);
        assert_eq!(panics.load(Ordering::Relaxed), answered.iter().filter(|ok| !**ok).count());
        let state = queue.state();
        assert!(!state.busy && state.waiting.is_empty() && state.answers.is_empty());
    }

    #[test]
    fn errors_are_their_requests_own() {
        let queue = Queue::<CpuMatrix>::default();
        let refused = |_: &[Arc<Request>]| vec![Err(PolicyError::Observation("no".to_owned()))];
        assert!(queue.answer(request(0), refused).is_err());
        let accepted = |requests: &[Arc<Request>]| vec![Ok(answer(&requests[0]))];
        assert_eq!(action(&queue.answer(request(7), accepted).unwrap()), 7);
    }
}
