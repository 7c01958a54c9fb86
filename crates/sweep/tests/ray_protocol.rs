//! The jobs interface of Ray, played by a few lines of HTTP that run what is submitted.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use skillweld_merge::recipe::Draft;
use skillweld_sweep::{Axis, Definition, EvalCommand, Ray, RayOptions, Sweep, SweepError, Watch};
use tempfile::TempDir;

/// What the head knows.
#[derive(Default)]
struct Head {
    jobs: Vec<Value>,
    logs: Vec<String>,
    stopped: Vec<String>,
    /// Questions about a job that are answered with an error first.
    hiccups: usize,
    /// Jobs never end.
    hangs: bool,
}

struct Fake {
    address: String,
    head: Arc<Mutex<Head>>,
    dir: TempDir,
}

impl Fake {
    fn start(head: Head) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("skillweld");
        std::fs::write(&program, "#!/bin/sh\nmkdir \"$3\" && echo \"$@\" > \"$3/asked\"\n").unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let head = Arc::new(Mutex::new(head));
        let (shared, path) = (Arc::clone(&head), dir.path().to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, path) = (Arc::clone(&shared), path.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &shared, &path));
            }
        });
        Self { address, head, dir }
    }

    fn options(&self) -> RayOptions {
        RayOptions {
            address: self.address.clone(),
            token: Some("secret".to_owned()),
            cpus: 2.0,
            gpus: 0.0,
            plugins: vec!["/plugins/p.so".to_owned()],
            threads: Some(3),
            longest_pause: Duration::from_millis(50),
        }
    }
}

/// One request a connection.
fn serve(stream: TcpStream, head: &Mutex<Head>, programs: &Path) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (mut length, mut known, mut header) = (0, false, String::new());
    while reader.read_line(&mut header).unwrap() > 2 {
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        known |= header.trim_end().eq_ignore_ascii_case("authorization: bearer secret");
        header.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let (status, answer) = match known {
        true => answer(method, path, &body, &mut head.lock().unwrap(), programs),
        false => ("401 Unauthorized", json!("who are you?")),
    };
    let text = answer.to_string();
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len())
        .unwrap();
}

fn answer(method: &str, path: &str, body: &[u8], head: &mut Head, programs: &Path) -> (&'static str, Value) {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (method, &parts[..]) {
        ("GET", ["api", "version"]) => ("200 OK", json!({"version": "4", "ray_version": "2.49.0"})),
        ("GET", ["api", "jobs"]) => ("200 OK", json!(head.jobs)),
        ("POST", ["api", "jobs"]) => {
            let mut job: Value = serde_json::from_slice(body).unwrap();
            let mut shell = Command::new("sh");
            let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
            shell.arg("-c").arg(job["entrypoint"].as_str().unwrap()).env("PATH", path);
            let output = if head.hangs { None } else { Some(shell.output().unwrap()) };
            let status = output.as_ref().map_or("RUNNING", |output| match output.status.success() {
                true => "SUCCEEDED",
                false => "FAILED",
            });
            job["status"] = json!(status);
            job["message"] = json!("as the head says");
            head.logs.push(output.map_or(String::new(), |output| String::from_utf8(output.stdout).unwrap()));
            let id = job["submission_id"].clone();
            head.jobs.push(job);
            ("200 OK", json!({"submission_id": id}))
        }
        (_, ["api", "jobs", id, rest @ ..]) => {
            if head.hiccups > 0 {
                head.hiccups -= 1;
                return ("503 Service Unavailable", json!("busy"));
            }
            let index = head.jobs.iter().position(|job| job["submission_id"] == *id).unwrap();
            match rest {
                ["logs"] => ("200 OK", json!({"logs": head.logs[index]})),
                ["stop"] => {
                    head.jobs[index]["status"] = json!("STOPPED");
                    head.stopped.push((*id).to_owned());
                    ("200 OK", json!({"stopped": true}))
                }
                _ => ("200 OK", head.jobs[index].clone()),
            }
        }
        _ => ("404 Not Found", json!("no such thing")),
    }
}

/// Runs a sweep of three points, two seeds each, from a folder beside the fake.
fn sweep(fake: &Fake, eval: &str, cancelled: &(dyn Fn() -> bool + Sync)) -> (Sweep, Result<(), SweepError>) {
    let command = EvalCommand::parse(eval).unwrap();
    let dir = fake.dir.path().join("sweep");
    let ray = Ray::connect(&dir, Path::new("/shared/recipe.yaml"), &command, fake.options()).unwrap();
    let axes = vec![Axis::parse("alpha=0.1,0.2,0.3").unwrap()];
    let definition = Definition::new(&Draft::new(""), axes, &command, &[]);
    let sweep = Sweep::open(&dir, definition, 2, false).unwrap();
    let result = sweep.run(&ray, 2, Watch { cancelled, told: &|_| {} });
    (sweep, result)
}

const EVAL: &str =
    "grep -q 'set alpha=0.3 --plugin /plugins/p.so --threads 3' {checkpoint}/asked && echo 3 || echo {seed}";

#[test]
fn scores_come_out_of_the_logs() {
    let fake = Fake::start(Head { hiccups: 3, ..Head::default() });
    let (sweep, result) = sweep(&fake, EVAL, &|| false);
    result.unwrap();
    let summary = sweep.summary(false);
    let means: Vec<_> = summary.points.iter().map(|point| point.mean).collect();
    assert_eq!(means, [Some(0.5), Some(0.5), Some(3.0)]);
    let head = fake.head.lock().unwrap();
    assert_eq!(head.jobs.len(), 3);
    let job = &head.jobs[0];
    assert_eq!((&job["entrypoint_num_cpus"], &job["entrypoint_num_gpus"]), (&json!(2.0), &Value::Null));
    assert!(job["entrypoint"].as_str().unwrap().contains("skillweld merge /shared/recipe.yaml"));
}

#[test]
fn a_job_that_fails_is_a_failed_point() {
    let fake = Fake::start(Head::default());
    std::fs::write(fake.dir.path().join("skillweld"), "#!/bin/sh\necho no such model\nexit 1\n").unwrap();
    let (sweep, result) = sweep(&fake, EVAL, &|| false);
    result.unwrap();
    let summary = sweep.summary(false);
    assert_eq!(summary.failed(), 3);
    let why = &summary.points[0].failed[&0];
    assert!(why.contains("FAILED as the head says: no such model"), "{why}");
}

#[test]
fn a_stop_stops_the_jobs_and_so_does_the_start_after_a_kill() {
    let fake = Fake::start(Head { hangs: true, ..Head::default() });
    let head = Arc::clone(&fake.head);
    let (_, result) = sweep(&fake, EVAL, &move || head.lock().unwrap().jobs.len() == 2);
    assert!(matches!(result, Err(SweepError::Stopped)));
    assert_eq!(fake.head.lock().unwrap().stopped.len(), 2);

    // Whoever was killed could stop nothing; another sweep's jobs go on.
    {
        let mut head = fake.head.lock().unwrap();
        head.stopped.clear();
        head.jobs[0]["status"] = json!("RUNNING");
        let other = json!({"submission_id": "skillweld-000000000000-1", "status": "RUNNING"});
        head.jobs.push(other);
        head.logs.push(String::new());
        head.hangs = false;
    }
    let left = fake.head.lock().unwrap().jobs[0]["submission_id"].as_str().unwrap().to_owned();
    let (_, result) = sweep(&fake, EVAL, &|| false);
    result.unwrap();
    assert_eq!(fake.head.lock().unwrap().stopped, [left]);
}

#[test]
fn what_is_no_cluster_is_refused_with_the_remedy() {
    let command = EvalCommand::parse("echo 1").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let refused = |address: &str| {
        let fake = Fake::start(Head::default());
        let options = RayOptions { address: address.to_owned(), ..fake.options() };
        let result = Ray::connect(dir.path(), Path::new("r.yaml"), &command, options);
        result.err().unwrap().to_string()
    };
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = refused(&format!("http://{free}"));
    assert!(said.contains("does not answer") && said.contains("ray start --head"), "{said}");
    for address in ["127.0.0.1:8265", "ray://head:10001", "http://"] {
        assert!(refused(address).contains("such as http://127.0.0.1:8265"), "{}", refused(address));
    }
    let fake = Fake::start(Head::default());
    let elsewhere = RayOptions { address: format!("{}/elsewhere", fake.address), ..fake.options() };
    let said = Ray::connect(dir.path(), Path::new("r.yaml"), &command, elsewhere).err().unwrap().to_string();
    assert!(said.contains("refuses /api/version with status 404"), "{said}");
    let stranger = RayOptions { token: None, ..fake.options() };
    let refused =
        Ray::connect(dir.path(), Path::new("r.yaml"), &command, stranger).err().unwrap().to_string();
    assert!(refused.contains("401") && refused.contains("RAY_AUTH_TOKEN"), "{refused}");
}
