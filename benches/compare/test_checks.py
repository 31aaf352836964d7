"""Each check fails for a proxy that forgets what it is about: nginx, with one line of its configuration changed."""

import os
import shutil
import unittest

import checks
import peers
import scene

os.environ["PATH"] += ":/usr/sbin:/sbin"

# Check -> what is replaced in nginx's configuration, and by what.
FORGETS = {
    "attaches our credential": (f'proxy_set_header   Authorization "{scene.BASIC}";', ""),
    "drops the caller's": ('proxy_set_header   X-API-Key "";', ""),
    "drops cookies of answers": ("proxy_hide_header  Set-Cookie;", ""),
    "refuses other networks": ("deny all;", ""),
    "TLS 1.3 upstream": ("proxy_ssl_protocols           TLSv1.3;", "proxy_ssl_protocols TLSv1.2;"),
    "keeps upstream connections": ("keepalive          256;", ""),
    "writes access records": ("access_log ", "access_log off; #"),
    "refuses another CA": ("proxy_ssl_verify              on;", "proxy_ssl_verify off;"),
    "refuses another name": ("proxy_ssl_verify              on;", "proxy_ssl_verify off;"),
}
HANG_TOGETHER = {"refuses another CA", "refuses another name", "drops the caller's"}


class Forgetful(peers.Nginx):
    def __init__(self, old, new):
        self._change = (old, new)

    def configuration(self, values):
        whole = super().configuration(values)
        changed = whole.replace(*self._change)
        assert changed != whole, f"nothing to replace: {self._change[0]}"
        return changed


class Guarded(peers.Nginx):
    def also_on(self, proxy):
        return "it is off"


@unittest.skipUnless(shutil.which("nginx"), "nginx is not installed")
class Checks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stage = scene.Scene()
        cls.addClassCleanup(cls.stage.__exit__)

    def failed(self, peer):
        return {name for name, seen in checks.check(self.stage, peer).items() if seen is not None}

    def test_nginx_as_configured_passes_all(self):
        self.assertEqual(self.failed(peers.Nginx()), set())

    def test_each_check_notices_what_it_is_about(self):
        for name, (old, new) in FORGETS.items():
            with self.subTest(name):
                failed = self.failed(Forgetful(old, new))
                self.assertIn(name, failed)
                # Nothing else stopped working but what hangs on the same line.
                self.assertLessEqual(failed, {name} | HANG_TOGETHER)

    def test_what_a_proxy_alone_has_is_looked_at(self):
        self.assertEqual(self.failed(Guarded()), {"has the rest switched on"})

    def test_every_check_was_seen_to_fail(self):
        every = {*checks.WITH_THE_UPSTREAM, *checks.WITH_A_WRONG_UPSTREAM}
        self.assertEqual(every, {*FORGETS, "has the rest switched on"})


if __name__ == "__main__":
    unittest.main()
