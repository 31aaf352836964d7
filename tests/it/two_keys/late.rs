//! The second key's time, while the first attempt is on its way.

use super::*;

#[test]
fn a_second_key_that_is_revoked_before_the_first_answer_comes_is_not_sent() {
    for is_revoked in [false, true] {
        let (door, seconds) = (Arc::new(Door::default()), Arc::new(AtomicU64::new(0)));
        let (at_door, counted) = (door.clone(), seconds.clone());
        let upstream = RawUpstream::start(move |_, wire: &mut Wire| {
            loop {
                let head = wire.head()?;
                let is_second = carries_second(&head);
                counted.fetch_add(u64::from(is_second && head.starts_with("GET /users ")), Relaxed);
                if !is_second {
                    at_door.pass();
                }
                wire.say(if is_second { ok("{}") } else { UNAUTHORIZED.to_owned() })?;
            }
        });
        let gateway = with_two_keys(upstream.setup()).start();
        let mut client = gateway.connect();
        client.request("GET /users HTTP/1.1", "");
        door.wait_for(1);
        if is_revoked {
            std::fs::remove_file(gateway.setup.folder().join("second")).unwrap();
            until("it is revoked", || keys(&gateway) == Value::Null);
        }
        door.open();
        let expected = if is_revoked { (401, 0) } else { (200, 1) };
        assert_eq!((client.answer().status, seconds.load(Relaxed)), expected);
    }
}
