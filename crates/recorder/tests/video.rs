//! Images as mp4: recorded, interrupted, damaged. Wants ffmpeg, or the program that `SKILLWELD_FFMPEG` names.
#![cfg(feature = "mp4")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, where a panic is a failed test")]

mod common;

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::{assert_complete, assert_goes_on, record, run_and_kill, writer};
use skillweld_recorder::{Dataset, Images, Recorder, RecorderError, Spec, TOLERANCE_S};

fn spec() -> Spec {
    Spec { video: true, ..common::spec() }
}

fn videos(folder: &Path, file: usize) -> [PathBuf; 2] {
    ["front", "wrist"]
        .map(|camera| folder.join(format!("videos/observation.images.{camera}/chunk-000/file-{file:03}.mp4")))
}

fn problems(folder: &Path) -> Vec<String> {
    let report = Dataset::open(folder).unwrap().check(TOLERANCE_S, Images::Pixels).unwrap();
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn numbers_come_back_to_the_bit_and_each_camera_has_a_file_an_episode() {
    let folder = tempfile::tempdir().unwrap();
    spec().check().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    record(&mut recorder, 1);
    record(&mut recorder, 40);
    drop(recorder);
    let mut recorder = Recorder::resume(folder.path(), spec()).unwrap();
    assert!(recorder.leftovers().is_empty());
    record(&mut recorder, 7);
    drop(recorder);
    let dataset = assert_complete(folder.path());
    for path in (0..3).flat_map(|file| videos(folder.path(), file)) {
        assert!(path.exists(), "{}", path.display());
    }
    for frame in dataset.frames(1).unwrap() {
        assert!(frame.unwrap().images.is_empty());
    }
    // The statistics are those of the images, whatever becomes of them.
    let other = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(other.path(), common::spec()).unwrap();
    [1, 40, 7].into_iter().for_each(|frames| record(&mut recorder, frames));
    let read = |path: &Path| fs::read(path.join("meta/stats.json")).unwrap();
    assert_eq!(read(folder.path()), read(other.path()));
}

#[test]
fn png_and_mp4_are_not_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let (png, mp4) = (folder.path().join("png"), folder.path().join("mp4"));
    drop(Recorder::create(&png, common::spec()).unwrap());
    drop(Recorder::create(&mp4, spec()).unwrap());
    let message = |path: &Path, spec: Spec| Recorder::resume(path, spec).err().unwrap().to_string();
    assert_eq!(
        message(&mp4, common::spec()),
        "observation.images.front differs: the dataset has video h264 24 × 32 × 3, this recording image 24 × 32 × 3; \
         record into a new folder"
    );
    assert!(message(&png, spec()).contains("has image 24 × 32 × 3, this recording video h264 24 × 32 × 3"));
    let info = mp4.join("meta/info.json");
    let text = fs::read_to_string(&info).unwrap();
    fs::write(&info, text.replace("h264", "av1")).unwrap();
    assert!(message(&mp4, spec()).contains("has video av1 24 × 32 × 3"), "one codec in a dataset");
}

#[test]
fn what_no_video_can_have_is_refused() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = spec();
        change(&mut spec);
        spec.check().unwrap_err().to_string()
    };
    assert!(refused(&|spec| spec.cameras[1].width = 15).contains("camera wrist: 310 × 15 pixels"));
    assert!(refused(&|spec| spec.cameras.clear()).contains("no camera"));
}

#[test]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn a_killed_recording_loses_the_open_episode_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    drop(Recorder::create(&path, spec()).unwrap());
    let (mut before, mut by_children, mut rounds_with_videos) = (0, 0, 0);
    for _ in 0..12 {
        let random = RandomState::new().build_hasher().finish();
        // An episode takes some 200 ms, most of them in the encoder.
        let after = Duration::from_micros(random % 700_000);
        let said = run_and_kill(&path, &["3,5,4", "video"], true, after).unwrap();
        let (episodes, removed) = assert_goes_on(&path, spec(), said);
        rounds_with_videos += usize::from(removed.iter().any(|path| path.to_string_lossy().contains(".mp4")));
        by_children += episodes - before;
        before = episodes + 1;
    }
    assert!(by_children > 0 && rounds_with_videos > 0, "{by_children} saved, {rounds_with_videos} met");
    // Every file is one episode's: nothing is left of those that were not saved.
    for camera in ["front", "wrist"] {
        let chunk = path.join(format!("videos/observation.images.{camera}/chunk-000"));
        assert_eq!(fs::read_dir(chunk).unwrap().count(), before);
    }
}

/// What `examples/write.rs` says when it records two episodes with this script in ffmpeg's place: its output and its errors.
fn with_encoder(folder: &Path, script: &str) -> (String, String) {
    let program = folder.join("fake-ffmpeg");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    run_writer(folder, &program)
}

fn run_writer(folder: &Path, program: &Path) -> (String, String) {
    let mut command = Command::new(writer());
    command.arg(folder.join("set")).args(["2", "3", "video"]).env("SKILLWELD_FFMPEG", program);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn an_encoder_that_is_not_there_is_named_before_there_is_a_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let (_, errors) = run_writer(folder.path(), Path::new("/nowhere/ffmpeg"));
    assert!(
        errors.starts_with("/nowhere/ffmpeg makes no mp4: it cannot be started (No such file"),
        "{errors}"
    );
    assert!(errors.contains("install ffmpeg, or name the program in SKILLWELD_FFMPEG"), "{errors}");
    let (_, errors) = with_encoder(folder.path(), "echo noise >&2; echo 'Unknown encoder' >&2; exit 1");
    assert!(errors.contains("of 24 × 32 pixels: Unknown encoder; install ffmpeg with libx264"), "{errors}");
    assert!(!folder.path().join("set").exists());
}

/// Does as asked while it is tried, and fails when it is to make a file.
fn failing_later(how: &str) -> String {
    format!("case \"$*\" in *null*) cat > /dev/null;; *) {how};; esac")
}

#[test]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn an_encoder_that_fails_is_quoted_and_saved_episodes_stay() {
    for (how, said) in [
        ("echo first >&2; echo 'last words' >&2; echo >&2; exit 3", "makes no mp4: "),
        (
            "echo first >&2; echo 'last words' >&2; echo >&2; exit 3",
            ".mp4: last words; saved episodes are intact",
        ),
        ("kill -9 $$", "it ended with signal: 9"),
        ("cat > /dev/null", "has no index"),
        ("echo 'av_write_frame(): No space left on device' >&2; echo 'failed' >&2; exit 1", "no room left"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set");
        let mut recorder = Recorder::create(&path, spec()).unwrap();
        record(&mut recorder, 3);
        drop(recorder);
        let (output, errors) = with_encoder(folder.path(), &failing_later(how));
        let lost: Vec<_> = output.lines().filter(|line| line.starts_with("lost ")).collect();
        assert!(lost.len() == 2 && lost[0].contains(said), "{how}: {output}{errors}");
        assert_eq!(assert_complete(&path).episodes().len(), 1);
        assert!(!videos(&path, 1)[0].exists());
        let mut recorder = Recorder::resume(&path, spec()).unwrap();
        assert!(recorder.leftovers().is_empty());
        record(&mut recorder, 2);
    }
}

#[test]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn a_save_that_failed_may_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    record(&mut recorder, 3);
    recorder.start_episode(common::task(1)).unwrap();
    common::add_frames(&mut recorder, 1, 4).unwrap();
    // A folder stands where the second camera's video is to be written.
    let wrist = &videos(folder.path(), 1)[1];
    let obstacle = wrist.with_file_name(".file-001.mp4.partial");
    fs::create_dir(&obstacle).unwrap();
    assert!(matches!(recorder.save_episode(), Err(RecorderError::Io { .. })));
    assert_eq!(assert_complete(folder.path()).episodes().len(), 1);
    assert!(!videos(folder.path(), 1)[0].exists());
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(recorder.save_episode().unwrap().episode, 1);
    assert_eq!(assert_complete(folder.path()).episodes().len(), 2);
}

#[test]
#[ignore = "wants ffmpeg: `cargo xtask test` runs it"]
fn videos_that_are_missing_cut_or_anothers_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::create(folder.path(), spec()).unwrap();
    record(&mut recorder, 2);
    record(&mut recorder, 9);
    drop(recorder);
    let ([front, wrist], [second, _]) = (videos(folder.path(), 0), videos(folder.path(), 1));
    let (short, long) = (fs::read(&front).unwrap(), fs::read(&second).unwrap());
    let expect = |episode: usize, what: &str| {
        let found = problems(folder.path());
        let start = format!("episode {episode}: front: ");
        assert!(found.len() == 1 && found[0].starts_with(&start) && found[0].contains(what), "{found:?}");
    };
    fs::write(&second, &long[..long.len() - 1]).unwrap();
    expect(1, "file-001.mp4: is cut off");
    fs::write(&second, &short).unwrap();
    expect(1, "its file has 2 frames in 0.0");
    fs::write(&second, &long).unwrap();
    fs::copy(&wrist, &front).unwrap();
    expect(0, "310 × 16 pixels, not what the features say");
    fs::remove_file(&front).unwrap();
    expect(0, "file-000.mp4: cannot be opened");
    fs::write(&front, &short).unwrap();
    assert_eq!(problems(folder.path()), [""; 0]);
    let info = folder.path().join("meta/info.json");
    let text = fs::read_to_string(&info).unwrap();
    fs::write(&info, text.replace("\"videos/{video_key}", "\"films/{video_key}")).unwrap();
    assert!(problems(folder.path())[0].contains("video_path is films/"));
}
