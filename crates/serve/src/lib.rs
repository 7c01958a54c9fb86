//! The policy server: any [`Policy`] behind the protocol that robot clients already speak.
//!
//! - [`Server`]: a port, a thread for the policy, two for sockets. `GET /healthz`, `GET /metrics` (Prometheus), and websockets on
//!   any other path.
//! - openpi's clients (LIBERO, DROID, ALOHA) work unchanged; the messages of StarVLA's and of XPolicyLab's (RoboTwin 2.0,
//!   RoboDojo) are answered on the same port, with the feature `zmq` those of GR00T's on a port of their own. [`KEY_SETS`] says
//!   which keys are understood.
//! - [`ZeroCost`]: a policy that computes nothing, for tests and benches.
//! - [`decode`] and [`encode`]: msgpack with NumPy arrays; arrays share the received frame's memory.
//!
//! One request of each client is in the queue at a time, so that clients take turns. Pings are answered while inference
//! runs, and a client is given up only when no byte has come for a ping's interval and its timeout. A request may carry,
//! beside an observation, `task` (instead of routing), `reset` (a new episode starts; alone it is answered with
//! `{"reset": true}`), `inference_delay` and `prev_chunk_left_over` (for asynchronous chunking). Every reply of a policy with
//! tasks carries `routing` {task, reason, scores, margin}: see [`Routing`]. What is wrong with a request is said in a text
//! frame, then the connection is closed with 1011 (1009 for an oversized message); in the envelopes of StarVLA, XPolicyLab and
//! GR00T it is an answer, and the connection stays. [`Limits`] bound what one client can make the server hold.
//!
//! This crate knows no model: the policy says what it wants in its [`Metadata`]. It prints nothing; [`Options::on_event`]
//! hears what happens.
//!
//! ```
//! use skillweld_serve::{Options, Server, ZeroCost};
//!
//! let options = Options { address: ([127, 0, 0, 1], 0).into(), ..Options::default() };
//! let server = Server::bind(ZeroCost::libero(), options)?;
//! println!("ws://{}", server.address());
//! server.handle().stop(); // from another thread, or use `run_until_signal`
//! server.run()?;
//! # Ok::<(), skillweld_serve::ServeError>(())
//! ```

mod array;
mod codec;
mod connection;
mod decision;
mod error;
mod http;
mod lively;
mod metrics;
mod observation;
mod options;
mod policy;
mod protocol;
mod queue;
mod server;
mod shared;
mod value;
mod worker;
mod zero_cost;
#[cfg(feature = "zmq")]
mod zmq;

pub use array::{Array, ArrayError, Dtype};
pub use codec::{DecodeError, DecodeLimits, decode, encode};
pub use decision::{Decision, Outcome, Reason, Routing, Scores};
pub use error::ServeError;
pub use observation::{KEY_SETS, KeySet, ObservationError};
pub use options::{Client, Event, Limits, Options};
pub use policy::{Image, InferError, Metadata, Observation, Policy, Reply};
pub use server::{Handle, Server};
pub use value::Value;
pub use zero_cost::ZeroCost;
