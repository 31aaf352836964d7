//! What a running gateway does not take up.

use super::Config;

impl Config {
    /// Takes the restart-only values of `running`, which stay in force until a restart.
    pub fn keep_restart_only(&mut self, running: &Self) {
        self.listeners.clone_from(&running.listeners);
        self.vault.clone_from(&running.vault);
        self.connections.clone_from(&running.connections);
        self.refresh.vault = running.refresh.vault;
        self.health.clone_from(&running.health);
        self.control_socket.clone_from(&running.control_socket);
        self.log.json = running.log.json;
        self.record.clone_from(&running.record);
        self.process.clone_from(&running.process);
    }

    /// The restart-only keys whose values differ in `new`, so that a reload can say that they wait for
    /// the next start.
    #[must_use]
    pub fn restart_only_changes(&self, new: &Self) -> Vec<&'static str> {
        let (process, new_process) = (&self.process, &new.process);
        let same = [
            ("listener", self.listeners == new.listeners),
            ("vault", self.vault == new.vault && self.refresh.vault == new.refresh.vault),
            ("connections", self.connections == new.connections),
            ("health", self.health == new.health),
            ("control.socket", self.control_socket == new.control_socket),
            ("log.format", self.log.json == new.log.json),
            ("record.destination", self.record == new.record),
            ("process.workers", process.workers == new_process.workers),
            ("process.drain_delay_ms", process.drain_delay == new_process.drain_delay),
            ("process.drain_total_ms", process.drain_total == new_process.drain_total),
        ];
        same.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}
