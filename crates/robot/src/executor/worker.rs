use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Chunk, ChunkError, ChunkRequest, ChunkSource};

/// Whatever answers requests while the loop goes on. One request is out at a time.
pub(super) trait Inference: Send {
    /// A new episode starts, before the next request.
    fn start_episode(&mut self);

    /// Hands over a request.
    fn submit(&mut self, request: ChunkRequest);

    /// The answer to the request, once.
    fn poll(&mut self) -> Option<Answer>;
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) chunk: Result<Chunk, ChunkError>,
    /// How long the source took.
    pub(super) took: Duration,
}

enum Job {
    Episode,
    Infer(Box<ChunkRequest>),
}

/// A thread that runs a source of chunks. It ends after the inference that runs when this is dropped; nobody waits for that:
/// turning torque off must not depend on a policy that hangs.
pub(super) struct Worker {
    jobs: Sender<Job>,
    answers: Receiver<Answer>,
}

impl Worker {
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn spawn(mut source: Box<dyn ChunkSource>) -> Result<Self, ChunkError> {
        let (jobs, todo) = channel();
        let (done, answers) = channel();
        let run = move || {
            while let Ok(job) = todo.recv() {
                match job {
                    Job::Episode => source.start_episode(),
                    Job::Infer(request) => {
                        let start = Instant::now();
                        let chunk = source.infer(&request);
                        if done.send(Answer { chunk, took: start.elapsed() }).is_err() {
                            break;
                        }
                    }
                }
            }
        };
        let spawned = thread::Builder::new().name("policy".to_owned()).spawn(run);
        spawned.map_err(|error| ChunkError::Failed(format!("no thread for the policy: {error}")))?;
        Ok(Self { jobs, answers })
    }
}

impl Inference for Worker {
    // A thread that has ended is noticed by `poll`, so that failures to send need not be.
    fn start_episode(&mut self) {
        let _ = self.jobs.send(Job::Episode);
    }

    fn submit(&mut self, request: ChunkRequest) {
        let _ = self.jobs.send(Job::Infer(Box::new(request)));
    }

    fn poll(&mut self) -> Option<Answer> {
        match self.answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Answer { chunk: Err(ChunkError::Ended), took: Duration::ZERO })
            }
        }
    }
}
