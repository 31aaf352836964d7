"""bundle.py IMAGE.json BUNDLE MOUNTS...: makes `runc spec`'s config.json into what an engine would run this image with.

IMAGE.json is `buildah inspect --type image`. Own pid, mount, ipc and uts namespaces, the host's network (for its
loopback), a read-only root, the image's user, environment and command, no capabilities, no new privileges. No cgroup,
hence no memory limit, and no seccomp profile: engines add those themselves.
MOUNTS are HOST:CONTAINER, mounted read-only, and tmpfs:CONTAINER, which belongs to the image's user alone.
"""

import json
import pathlib
import sys


def main(image, bundle, *mounts):
    file = pathlib.Path(bundle, "config.json")
    config = json.loads(file.read_text())
    wanted = json.loads(pathlib.Path(image).read_text())["Docker"]["config"]
    user, _, group = wanted["User"].partition(":")
    process = config["process"]
    process["args"] = (wanted["Entrypoint"] or []) + (wanted["Cmd"] or [])
    process["env"] = wanted["Env"] or []
    process["cwd"] = wanted["WorkingDir"] or "/"
    process["user"] = {"uid": int(user), "gid": int(group)}
    process["terminal"] = False
    process["noNewPrivileges"] = True
    process["capabilities"] = {kind: [] for kind in process["capabilities"]}
    process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 8192}]
    config["root"] = {"path": "rootfs", "readonly": True}
    config["linux"]["namespaces"] = [
        namespace for namespace in config["linux"]["namespaces"] if namespace["type"] not in ("network", "cgroup")
    ]
    config["linux"].pop("resources", None)
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    config["mounts"] += [as_mount(mount, user, group) for mount in mounts]
    file.write_text(json.dumps(config, indent=1))


def as_mount(mount, user, group):
    source, _, destination = mount.partition(":")
    if source == "tmpfs":
        options = ["nosuid", "nodev", "noexec", "mode=0700", f"uid={user}", f"gid={group}"]
        return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return {"destination": destination, "type": "bind", "source": source, "options": options}


if __name__ == "__main__":
    main(*sys.argv[1:])
