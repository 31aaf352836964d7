//! A real process, ended by SIGKILL after and inside every step: at each request that it sends to MX, before MX acts on
//! it and after, and at each write to the vault's folder, before each of its system calls.
//!
//! After each kill the vault's key must work; the next run must come to the end, or say `secondary unknown`, from where
//! an operator's order leads to the end.

use std::{
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use mxgate::stand_in::hold::Point;

use super::{
    text,
    vault::{Bao, Rotating},
};
use crate::harness::{API_KEY, PATIENCE};

/// Many at once: most of their time they wait for a lock to end.
const THREADS: usize = 10;

/// What a run that follows a kill came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Done,
    Unknown,
}

/// Looks at what a killed run has left, runs the next one, and brings it to the end.
#[track_caller]
fn resume(rotating: &Rotating, killed: &str) -> After {
    rotating.assert_works();
    let asked = rotating.mx.count("rotateApiKey");
    let was_idle = rotating.status()["step"] == "idle";
    let output = rotating.rotate(&[]);
    rotating.assert_works();
    if !was_idle {
        assert_eq!(rotating.mx.count("rotateApiKey"), asked, "killed {killed}: MX was asked again");
    }
    if output.status.success() {
        rotating.over();
        return After::Done;
    }
    assert!(text(&output).contains("secondary unknown"), "killed {killed}: {}", text(&output));
    assert_eq!((rotating.primary(), &rotating.status()["step"]), (API_KEY.to_owned(), &"unknown".into()));
    // It stays like that until somebody orders otherwise.
    let again = rotating.rotate(&[]);
    assert!(text(&again).contains("--replace-unknown-secondary"), "{}", text(&again));
    assert_eq!(rotating.mx.count("rotateApiKey"), asked);
    let replaced = rotating.rotate(&["--replace-unknown-secondary"]);
    assert!(replaced.status.success(), "killed {killed}: {}", text(&replaced));
    rotating.over();
    After::Unknown
}

fn kill(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("a child");
}

/// Each case on one of a few threads.
fn for_each<T: Sync>(cases: &[T], check: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    check(case);
                }
            });
        }
    });
}

#[test]
fn at_each_request_to_mx_before_and_after_its_deed() {
    at_each_request_to_mx(&|_| Rotating::new());
}

#[test]
fn at_each_request_to_mx_with_the_keys_in_openbao() {
    let bao = Bao::start();
    at_each_request_to_mx(&|case| Rotating::in_openbao(&bao, case));
}

/// `make` has a vault of its own for each case, by a name.
fn at_each_request_to_mx(make: &(dyn Fn(&str) -> Rotating + Sync)) {
    // In the order of a run: a read with the old key, rotate, reads with the new one, the old one, retire, the old one.
    let requests = [
        ("listInstitutions", 0),
        ("rotateApiKey", 0),
        ("listInstitutions", 1),
        ("listInstitutions", 2),
        ("listInstitutions", 3),
        ("listInstitutions", 4),
        ("retireApiKey", 0),
        ("listInstitutions", 5),
    ];
    let cases: Vec<_> =
        requests.iter().flat_map(|request| [(request, Point::Before), (request, Point::After)]).collect();
    let unknown = AtomicUsize::new(0);
    for_each(&cases, |&(&(operation, passing), point)| {
        let rotating = make(&format!("{operation}-{point:?}-{passing}"));
        let held = rotating.mx.hold(operation, point, passing);
        let child = rotating.spawn(&[]);
        // More patience than others need: many debug builds run at once.
        assert!(held.wait(4 * PATIENCE), "the request has not come: {point:?} {operation} {passing}");
        kill(child);
        drop(held);
        let after = resume(&rotating, &format!("{point:?} {operation} {passing}"));
        let is_the_call = operation == "rotateApiKey";
        assert_eq!(after == After::Unknown, is_the_call, "{point:?} {operation} {passing}");
        unknown.fetch_add(usize::from(is_the_call), Ordering::Relaxed);
    });
    assert_eq!(unknown.into_inner(), 2);
    // There is no request that is not in the table.
    let rotating = make("more");
    let more = rotating.mx.hold("listInstitutions", Point::Before, 6);
    assert!(rotating.rotate(&[]).status.success());
    assert!(!more.wait(Duration::ZERO));
}

/// A run whose process is killed before its `number`th system call that changes the folder; whether it was.
fn killed_at_call(rotating: &Rotating, number: usize) -> bool {
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=rename,renameat,renameat2,fsync,unlink,unlinkat",
    ]);
    command.args([
        "-e",
        &format!("inject=rename,renameat,renameat2,fsync,unlink,unlinkat:signal=KILL:when={number}"),
    ]);
    command.arg(env!("CARGO_BIN_EXE_mxgate"));
    rotating.arguments(&mut command, &["test"]);
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("strace runs");
    // strace ends by the signal that ended its child.
    let killed = !output.status.success();
    assert!(!killed || output.status.code().is_none(), "{}", text(&output));
    killed
}

#[test]
fn at_each_system_call_that_changes_the_vaults_folder() {
    let numbers: Vec<usize> = (1..=MOST_CALLS).collect();
    let (last, unknown) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for_each(&numbers, |&number| {
        let rotating = Rotating::new();
        if killed_at_call(&rotating, number) {
            last.fetch_max(number, Ordering::Relaxed);
            let after = resume(&rotating, &format!("before system call {number}"));
            unknown.fetch_add(usize::from(after == After::Unknown), Ordering::Relaxed);
        } else {
            rotating.over();
        }
    });
    let (last, unknown) = (last.into_inner(), unknown.into_inner());
    println!("killed before each of {last} system calls; {unknown} times the secondary was unknown");
    assert!(last > 30 && last < MOST_CALLS, "{last} system calls: change the test");
    // Between the record that MX is asked and the one that the key is sealed: their own calls, and no others.
    assert!((1..=12).contains(&unknown), "{unknown}");
}

/// More than a run makes.
const MOST_CALLS: usize = 64;
