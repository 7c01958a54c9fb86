//! The part of Ray's jobs interface that trials need.
//!
//! `GET /api/version`, `GET /api/jobs/`, `POST /api/jobs/`, `GET /api/jobs/{id}`, `GET /api/jobs/{id}/logs`,
//! `POST /api/jobs/{id}/stop`: <https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html>.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;

use super::RayOptions;
use crate::SweepError;
use crate::score::Tail;

/// For one question and its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longer logs are not read.
const MAX_ANSWER_BYTES: u64 = 256 << 20;

/// A head's address, and the connections to it.
pub(super) struct Api {
    agent: Agent,
    address: String,
    authorization: Option<String>,
}

/// What the head says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) id: String,
    status: String,
    message: String,
}

impl Job {
    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            id: text("submission_id").unwrap_or_default(),
            status: text("status")?,
            message: text("message").unwrap_or_default(),
        })
    }

    pub(super) fn has_ended(&self) -> bool {
        ["SUCCEEDED", "FAILED", "STOPPED"].contains(&self.status.as_str())
    }

    /// How it ended.
    pub(super) fn end(&self) -> String {
        format!("{} {}", self.status, self.message).trim().to_owned()
    }
}

impl Api {
    pub(super) fn new(options: &RayOptions) -> Result<Self, SweepError> {
        let address = options.address.trim_end_matches('/').to_owned();
        let authorization = options.token.as_ref().map(|token| format!("Bearer {token}"));
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            // Clusters are inside, proxies lead outside.
            .proxy(None);
        let api = Self { agent: config.build().into(), address, authorization };
        match api.address.split_once("://") {
            Some(("http", host)) if !host.is_empty() => Ok(api),
            _ => Err(api.problem("write the dashboard's address, such as http://127.0.0.1:8265")),
        }
    }

    fn problem(&self, problem: impl Into<String>) -> SweepError {
        SweepError::Ray { address: self.address.clone(), problem: problem.into() }
    }

    fn ask(&self, path: &str, body: Option<Value>) -> Result<Value, SweepError> {
        let url = format!("{}{path}", self.address);
        let answer = match body {
            None => {
                let mut get = self.agent.get(&url);
                if let Some(token) = &self.authorization {
                    get = get.header("authorization", token);
                }
                get.call()
            }
            Some(body) => {
                let mut post = self.agent.post(&url).header("content-type", "application/json");
                if let Some(token) = &self.authorization {
                    post = post.header("authorization", token);
                }
                post.send(body.to_string())
            }
        };
        let unreachable = |error: ureq::Error| {
            self.problem(format!(
                "does not answer ({error}); is the cluster up (`ray start --head`), and is this its dashboard's address?"
            ))
        };
        let mut answer = answer.map_err(unreachable)?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).lossy_utf8(true);
        let text = body.read_to_string().map_err(unreachable)?;
        if !status.is_success() {
            let said = Tail::of_text(&text);
            let token = match status.as_u16() {
                401 | 403 => "; put the cluster's token into RAY_AUTH_TOKEN",
                _ => "",
            };
            return Err(self.problem(format!("refuses {path} with status {status}: {said}{token}")));
        }
        serde_json::from_str(&text).map_err(|_| {
            self.problem(format!(
                "answers {path} with something that is no JSON; is this the address of a Ray dashboard?"
            ))
        })
    }

    fn not_understood(&self, path: &str, answer: &Value) -> SweepError {
        let answer = answer.to_string();
        self.problem(format!("answers {path} in another way than Ray 2 does: {}", Tail::of_text(&answer)))
    }

    /// Fails unless a Ray head with a jobs interface is there.
    pub(super) fn check_version(&self) -> Result<(), SweepError> {
        let path = "/api/version";
        let answer = self.ask(path, None)?;
        match answer.get("ray_version").and_then(Value::as_str) {
            Some(_) => Ok(()),
            None => Err(self.not_understood(path, &answer)),
        }
    }

    /// Every job that the head remembers.
    pub(super) fn jobs(&self) -> Result<Vec<Job>, SweepError> {
        let path = "/api/jobs/";
        let answer = self.ask(path, None)?;
        let Value::Array(jobs) = &answer else { return Err(self.not_understood(path, &answer)) };
        // Programs that drive the cluster by themselves stand there too, without a submission.
        Ok(jobs.iter().filter_map(Job::read).collect())
    }

    pub(super) fn submit(
        &self,
        id: &str,
        entrypoint: &str,
        options: &RayOptions,
        label: &str,
    ) -> Result<(), SweepError> {
        let mut body = json!({
            "submission_id": id,
            "entrypoint": entrypoint,
            "metadata": {"skillweld_point": label},
        });
        for (field, count) in [("entrypoint_num_cpus", options.cpus), ("entrypoint_num_gpus", options.gpus)] {
            if count > 0.0 {
                body[field] = json!(count);
            }
        }
        self.ask("/api/jobs/", Some(body)).map(drop)
    }

    pub(super) fn job(&self, id: &str) -> Result<Job, SweepError> {
        let path = format!("/api/jobs/{id}");
        let answer = self.ask(&path, None)?;
        Job::read(&answer).ok_or_else(|| self.not_understood(&path, &answer))
    }

    pub(super) fn logs(&self, id: &str) -> Result<String, SweepError> {
        let path = format!("/api/jobs/{id}/logs");
        let answer = self.ask(&path, None)?;
        let logs = answer.get("logs").and_then(Value::as_str).map(str::to_owned);
        logs.ok_or_else(|| self.not_understood(&path, &answer))
    }

    pub(super) fn stop(&self, id: &str) -> Result<(), SweepError> {
        self.ask(&format!("/api/jobs/{id}/stop"), Some(json!({}))).map(drop)
    }
}
