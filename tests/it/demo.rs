//! `mxgate demo`: what it prints works when it is typed as it stands.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Output, mxgate, until};

#[test]
fn the_three_printed_lines_do_what_the_text_says() {
    let mut demo = Demo(
        Command::new(env!("CARGO_BIN_EXE_mxgate"))
            .args(["demo", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let output = Output::collect(demo.0.stdout.take().unwrap());
    output.wait_for(|line| line.contains("Ctrl-C"));
    let text = output.text();
    let typed: Vec<&str> = text.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
    let [allowed, refused, echoed] = typed[..] else { panic!("three lines to try: {text}") };

    assert!(shell(allowed).contains("\"users\":["), "{allowed}");
    assert!(shell(refused).contains("\"code\":\"operation_denied\""), "{refused}");
    let echo = shell(echoed);
    assert!(echo.to_lowercase().contains("authorization"), "{echo}");
    for secret in ["not:mine", "bm90Om1pbmU"] {
        assert!(!echo.contains(secret), "the caller's own credential is gone: {echo}");
    }
    assert!(echo.contains("Basic (hidden)"), "ours is shown masked: {echo}");

    let interrupted = Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let mut ended = None;
    until("the demo's end", || {
        ended = demo.0.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
}

#[test]
fn whoever_finds_the_port_taken_is_told_how_to_choose_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in ["demo", "stand-in"] {
        let output = mxgate(&[command, "--listen", &address], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&address) && said.ends_with("; --listen ADDRESS takes another\n"), "{said}");
    }
}

struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whoever reads that it is there may end it at once, and must not cut it off.
#[test]
fn a_stand_in_that_is_ended_at_its_first_word_ends_in_order() {
    for signal in [Signal::TERM, Signal::INT].into_iter().cycle().take(10) {
        let mut stand_in = Demo(
            Command::new(env!("CARGO_BIN_EXE_mxgate"))
                .args(["stand-in", "--listen", "127.0.0.1:0"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut lines = BufReader::new(stand_in.0.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("stand-in for MX at https://127.0.0.1:"));
        kill_process(Pid::from_child(&stand_in.0), signal).unwrap();
        let rest: Vec<_> = lines.collect();
        assert_eq!(stand_in.0.wait().unwrap().code(), Some(0), "{signal:?}: {rest:?}");
    }
}
