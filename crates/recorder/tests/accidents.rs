//! Killed in the middle, no room on the disk, files damaged: what was saved stays.
#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failed test")]

mod common;

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{assert_complete, assert_goes_on, record, run_and_kill, spec, writer};
use skillweld_recorder::{Dataset, Images, Recorder, RecorderError, TOLERANCE_S};

#[test]
fn a_killed_recording_loses_the_open_episode_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    let (mut before, mut by_children, mut rounds_with_leftovers) = (0, 0, 0);
    for round in 0..24 {
        let random = RandomState::new().build_hasher().finish();
        let after = Duration::from_micros(random % 200_000);
        let said = run_and_kill(&path, &["3,5,4"], round % 3 > 0, after);
        if said.is_none() && before == 0 && !path.join("meta/info.json").exists() {
            continue; // Killed before there was a dataset.
        }
        let (episodes, removed) = assert_goes_on(&path, spec(), said.unwrap_or(before));
        rounds_with_leftovers += usize::from(!removed.is_empty());
        by_children += episodes - before;
        before = episodes + 1;
    }
    // Else the kills have met nothing: neither episodes that must stay, nor one that must go.
    assert!(by_children > 0 && rounds_with_leftovers > 0, "{by_children} saved, {rounds_with_leftovers} met");
}

#[test]
fn a_full_disk_is_named_and_saved_episodes_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    // No file may have more than 256 KiB; instead of the signal, writers get the error that a full disk gives.
    let script = r#"trap '' XFSZ; ulimit -f 512; exec "$0" "$1" 4 "5,400,6,5""#;
    let output = Command::new("sh").args(["-c", script]).arg(writer()).arg(&path).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((lines[0], lines[1], lines.len()), ("ready 0", "saved 1", 5), "{said}");
    assert!(lines[2].starts_with("lost ") && lines[2].contains("no room left to write it"), "{said}");
    assert_eq!(lines[3..], ["saved 2", "saved 3"]);
    let dataset = assert_complete(&path);
    assert_eq!(dataset.episodes().iter().map(|e| e.frames).collect::<Vec<_>>(), [5, 6, 5]);
    assert_eq!(dataset.check(TOLERANCE_S, Images::Pixels).unwrap().leftovers, Vec::<PathBuf>::new());
}

#[test]
fn a_save_that_failed_may_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    record(&mut recorder, 3);
    recorder.start_episode(common::task(1)).unwrap();
    common::add_frames(&mut recorder, 1, 4).unwrap();
    // A folder stands where the new statistics are to be written.
    let obstacle = folder.path().join("meta/.stats.json.partial");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(recorder.save_episode(), Err(RecorderError::Io { .. })));
    assert_eq!(assert_complete(folder.path()).episodes().len(), 1);
    assert!(!folder.path().join("data/chunk-000/file-001.parquet").exists());
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(recorder.save_episode().unwrap().episode, 1);
    assert_eq!(assert_complete(folder.path()).episodes().len(), 2);
}

/// Files of a small dataset, with their content.
fn sample(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut recorder = Recorder::create(folder, spec()).unwrap();
    record(&mut recorder, 2);
    record(&mut recorder, 3);
    drop(recorder);
    let files = [
        "meta/info.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-001.parquet",
        "data/chunk-000/file-001.parquet",
    ];
    files.map(|name| (folder.join(name), fs::read(folder.join(name)).unwrap())).to_vec()
}

/// Opens and reads everything: an error, or problems, or nothing that matters; never a panic.
fn read(folder: &Path) -> Result<usize, RecorderError> {
    let dataset = Dataset::open(folder)?;
    Ok(dataset.check(TOLERANCE_S, Images::Pixels)?.problems.len())
}

#[test]
fn truncated_files_are_errors_that_name_them() {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in sample(folder.path()) {
        for keep in [0, 3, 4, 11, content.len() / 2, content.len() - 9, content.len() - 1] {
            fs::write(&path, &content[..keep]).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            match read(folder.path()) {
                Err(error) => assert!(error.to_string().contains(name), "{error}"),
                Ok(problems) => assert!(
                    problems > 0 || (name == "info.json" && keep == content.len() - 1),
                    "{name} cut to {keep} bytes is not noticed"
                ),
            }
        }
        fs::write(&path, &content).unwrap();
    }
    assert_eq!(read(folder.path()).unwrap(), 0);
}

#[test]
fn damaged_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let files = sample(folder.path());
    let mut state = 88_172_645_463_325_252_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for round in 0..400 {
        let (path, content) = &files[round % files.len()];
        let mut damaged = content.clone();
        // Parquet's footer is where structure is: half of the damage goes there.
        let tail = if random(2) == 0 { content.len() } else { content.len().min(2000) };
        for _ in 0..1 + random(3) {
            let at = content.len() - 1 - random(tail);
            damaged[at] = random(256) as u8;
        }
        fs::write(path, &damaged).unwrap();
        let _ = read(folder.path());
        fs::write(path, content).unwrap();
    }
    assert_eq!(read(folder.path()).unwrap(), 0);
}

#[test]
fn what_is_at_odds_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let files = sample(folder.path());
    let info = String::from_utf8(files[0].1.clone()).unwrap();
    let with = |from: &str, to: &str| {
        assert!(info.contains(from), "{info}");
        fs::write(&files[0].0, info.replace(from, to)).unwrap();
        read(folder.path()).map_err(|error| error.to_string())
    };
    assert!(with("\"v3.0\"", "\"v2.1\"").unwrap_err().contains("convert the dataset with lerobot"));
    assert!(with("\"total_episodes\": 2", "\"total_episodes\": 3").unwrap_err().contains("counts 3"));
    assert!(with("\"fps\": 30", "\"fps\": 0").unwrap_err().contains("fps"));
    assert_eq!(with("\"fps\": 30", "\"fps\": 25"), Ok(2), "timestamps of both episodes");
    assert_eq!(with("24,", "25,"), Ok(2), "the front camera's height in both episodes");
    fs::write(&files[0].0, &info).unwrap();
    // The second episode's frames in the first one's place.
    fs::write(folder.path().join("data/chunk-000/file-000.parquet"), &files[3].1).unwrap();
    assert!(read(folder.path()).unwrap() >= 3, "index, episode_index, task_index");
    fs::remove_file(folder.path().join("data/chunk-000/file-000.parquet")).unwrap();
    assert_eq!(read(folder.path()).unwrap(), 1);
    assert!(
        Dataset::open(&folder.path().join("nothing")).unwrap_err().to_string().contains("no LeRobotDataset")
    );
}

/// A recorder removes what an interrupted save leaves, which is one episode; never more.
#[test]
fn episodes_that_are_not_counted_stay() {
    let folder = tempfile::tempdir().unwrap();
    let files = sample(folder.path());
    let mut recorder = Recorder::resume(folder.path(), spec()).unwrap();
    record(&mut recorder, 2);
    drop(recorder);
    let lie = String::from_utf8(files[0].1.clone()).unwrap();
    let lie = lie.replace("\"total_episodes\": 2", "\"total_episodes\": 1");
    fs::write(&files[0].0, lie.replace("\"total_frames\": 5", "\"total_frames\": 2")).unwrap();
    let listed = || {
        let mut pending = vec![folder.path().to_owned()];
        let mut all = Vec::new();
        while let Some(path) = pending.pop() {
            match fs::read_dir(&path) {
                Ok(entries) => pending.extend(entries.map(|entry| entry.unwrap().path())),
                Err(_) => all.push((fs::read(&path).unwrap(), path)),
            }
        }
        all.sort();
        all
    };
    let before = listed();
    let error = Recorder::resume(folder.path(), spec()).err().unwrap();
    assert!(matches!(error, RecorderError::Damaged { .. }), "{error}");
    assert_eq!(listed(), before);
}
