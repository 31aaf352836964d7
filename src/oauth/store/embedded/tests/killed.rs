//! A real process, ended by SIGKILL before each of its system calls on the file, or whose disk is full at one of them.

use std::{
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use super::{super::Inner, *};

/// Two at once: each is a debug build under strace.
const THREADS: usize = 2;

/// What stands before the path in the argument that names the child's store.
const STORE: &str = "store=";

/// The system calls that change the file, or wait until it is changed.
const CALLS: &str = "pwrite64,write,ftruncate,fallocate,fsync,fdatasync";

/// The process that is killed: it opens the store that it is named and commits twice. What it is told is stored, it
/// says. Without a store it is nothing.
#[test]
fn child() {
    let named = std::env::args().find_map(|argument| argument.strip_prefix(STORE).map(PathBuf::from));
    let Some(path) = named else { return };
    let store = Embedded::open(&path, keys(KEY)).unwrap();
    for generation in [2, 3] {
        commit(&store.0, generation);
        println!("stored {generation}");
    }
}

/// The same, which takes what is pending and says what it got.
#[test]
fn taker() {
    let named = std::env::args().find_map(|argument| argument.strip_prefix(STORE).map(PathBuf::from));
    let Some(path) = named else { return };
    let store = Embedded::open(&path, keys(KEY)).unwrap();
    for ticket in TICKETS {
        if store.0.take_pending(pending::name(ticket), NOW).unwrap().is_some() {
            println!("taken {ticket}");
        }
    }
}

const TICKETS: [&str; 2] = ["ticket-1", "ticket-2"];

/// Like somebody whose tokens nobody else has: an error is no reason to give them up. On this one thread, since strace
/// counts each thread's calls by themselves.
fn commit(store: &Inner, generation: u64) {
    let next = connection(id(1), generation);
    for _ in 0..4 {
        match attempt(store, &next) {
            Ok(()) => return,
            Err(error) => eprintln!("{error:?}"),
        }
    }
    panic!("not stored");
}

fn attempt(store: &Inner, next: &Connection) -> Result<(), crate::oauth::store::Error> {
    let Taken::Lease(lease) = store.take_lease(id(1), "child", NOW, NOW)? else { panic!("nobody has it") };
    let stored = store.load(id(1))?.unwrap();
    if stored.connection == *next {
        return Ok(());
    }
    let done = store.commit((lease.id, lease.fence), stored.version, next)?;
    assert_eq!(done, Committed::Stored(Version(stored.version.0 + 1)));
    Ok(())
}

/// The child under strace, which does `what` to its `number`th system call on the file.
fn child_under(folder: &Folder, calls: &str, what: &str, number: usize) -> Output {
    under_strace("child", folder, calls, what, number)
}

/// The test of this name as a process of its own.
fn under_strace(name: &str, folder: &Folder, calls: &str, what: &str, number: usize) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(folder.path());
    command.args(["-e", &format!("trace={calls}"), "-e", &format!("inject={calls}:{what}:when={number}")]);
    command.arg(std::env::current_exe().unwrap());
    let name = format!("{}::{name}", module_path!());
    let name = name.split_once("::").unwrap().1;
    // What names the store is one more name of a test to the test's program, of one that does not exist.
    command.args(["--exact", name, &format!("{STORE}{}", folder.path().display()), "--nocapture"]);
    command.output().expect("strace runs")
}

/// The generation that the child said is stored.
fn said(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    (1..=3).rev().find(|generation| text.contains(&format!("stored {generation}"))).unwrap_or(1)
}

/// What the next process finds: what was said to be stored, or what was just about to be.
fn assert_kept(folder: &Folder, output: &Output, case: &str) -> u64 {
    let said = said(output);
    let store = Embedded::open(&folder.path(), keys(KEY)).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let stored = run(store.load(id(1))).unwrap().unwrap_or_else(|| panic!("{case}: there is none"));
    let found = stored.version.0;
    assert_eq!(stored.connection, connection(id(1), found), "{case}");
    assert!(found == said || found == said + 1, "{case}: {found} was found, {said} was said");
    // Nobody waits for the lease of the dead, and the store works.
    run(async {
        let lease = lease(&store, id(1)).await;
        let next = connection(id(1), 9);
        let stored = store.commit(&lease, Version(found), &next).await.unwrap();
        assert_eq!(stored, Committed::Stored(Version(found + 1)), "{case}");
    });
    found
}

fn with_one_connection() -> Folder {
    let folder = Folder::with_store();
    run(folder.open().insert(&connection(id(1), 1))).unwrap();
    folder
}

/// Each number from 1 on, until `check` says that there is nothing at it.
fn for_each(check: impl Fn(usize) -> bool + Sync) -> usize {
    let (next, end) = (AtomicUsize::new(1), AtomicUsize::new(MOST_CALLS));
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= end.load(Ordering::Relaxed) {
                        break;
                    }
                    if !check(number) {
                        end.fetch_min(number, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    end.into_inner() - 1
}

/// More than the child makes.
const MOST_CALLS: usize = 200;

#[test]
fn at_each_system_call_on_the_file() {
    let found: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
    let last = for_each(|number| {
        let folder = with_one_connection();
        let output = child_under(&folder, CALLS, "signal=KILL", number);
        let generation = assert_kept(&folder, &output, &format!("killed at {number}"));
        found[usize::try_from(generation).unwrap()].fetch_add(1, Ordering::Relaxed);
        // strace ends by the signal that ended its child.
        let is_killed = output.status.code().is_none();
        assert!(is_killed || output.status.success(), "{output:?}");
        is_killed
    });
    let found: Vec<usize> = found.into_iter().map(AtomicUsize::into_inner).collect();
    println!("killed before each of {last} system calls; found by generation: {:?}", &found[1..]);
    assert!((20..MOST_CALLS - 1).contains(&last), "{last} system calls: change the test");
    assert!(found[1..].iter().all(|count| *count > 1), "{found:?}");
}

#[test]
fn what_was_taken_is_not_given_again_after_a_kill() {
    let got = AtomicUsize::new(0);
    let last = for_each(|number| {
        let folder = Folder::with_store();
        let store = folder.open();
        for ticket in TICKETS {
            run(store.put_pending(&pending::pending(ticket, NOW + 10), NOW)).unwrap();
        }
        drop(store);
        let output = under_strace("taker", &folder, CALLS, "signal=KILL", number);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let store = folder.open();
        for ticket in TICKETS {
            let again = run(store.take_pending(pending::name(ticket), NOW)).unwrap();
            let is_said = said.contains(&format!("taken {ticket}"));
            assert!(again.is_none() || !is_said, "killed at {number}: {ticket} is given twice");
            got.fetch_add(usize::from(is_said && output.status.code().is_none()), Ordering::Relaxed);
        }
        output.status.code().is_none()
    });
    assert!((10..MOST_CALLS - 1).contains(&last), "{last} system calls: change the test");
    assert!(got.into_inner() > 1, "none was killed after it had said something");
}

#[test]
fn a_disk_that_is_full_for_a_moment_costs_nothing() {
    let last = for_each(|number| {
        let folder = with_one_connection();
        let output = child_under(&folder, "pwrite64,ftruncate,fdatasync,fsync", "error=ENOSPC", number);
        let text = String::from_utf8_lossy(&output.stderr);
        // While it opens the store it may give up; from then on nothing is lost.
        let is_refused = text.contains("Unwritable");
        assert!(output.status.success() || is_refused, "{number}: {output:?}");
        let found = assert_kept(&folder, &output, &format!("no space at {number}"));
        assert!(found == 3 || is_refused, "{number}: {found}");
        number < ERRORS
    });
    assert_eq!(last, ERRORS - 1);
}

/// At so many calls, which is all of the opening and of the first commit.
const ERRORS: usize = 40;
