//! What the control plane asks of the loader: the status, readiness, a reload, another log filter.

use std::{pin::Pin, sync::Arc, time::SystemTime};

use super::{Cause, Loader};
use crate::{
    config,
    control::{Gateway, Readiness},
    limits::CallerLimits,
    oauth::cell::seconds,
    status::{ConnectionsStatus, EnvironmentStatus, GatewayStatus, Observing, ReloadReport},
    worker::Stage,
};

impl Loader {
    fn connections_status(&self, config: &config::Config) -> Option<ConnectionsStatus> {
        config.connections.as_ref()?;
        self.broker.as_ref().map(|broker| broker.status(seconds(SystemTime::now())))
    }
}

impl Gateway for Arc<Loader> {
    fn status(&self) -> GatewayStatus {
        let snapshot = self.snapshot.load();
        let state = self.state();
        let environment = |settings: &config::Environment| {
            let loaded = snapshot.as_ref().and_then(|snapshot| snapshot.environment(&settings.name));
            EnvironmentStatus {
                name: settings.name.clone(),
                host: settings.host.clone(),
                credential: settings.credential.source(),
                fingerprint: loaded
                    .and_then(|loaded| loaded.own.key())
                    .map(|credential| credential.used().fingerprint().to_owned()),
            }
        };
        let limits = snapshot.iter().flat_map(|snapshot| snapshot.limits.iter().flatten());
        GatewayStatus {
            generation: snapshot.as_ref().map_or(0, |snapshot| snapshot.generation),
            loaded_at: humantime::format_rfc3339_seconds(state.loaded_at).to_string(),
            configuration: self.path.display().to_string(),
            reload_fault: state.fault.clone(),
            log_filter: state.config.log.filter.clone(),
            listeners: state.config.listeners.iter().map(|listener| listener.address.to_string()).collect(),
            environments: state.config.environments.values().map(|settings| environment(settings)).collect(),
            upstreams: snapshot.as_ref().map(|snapshot| snapshot.upstreams()).unwrap_or_default(),
            limits: limits.map(CallerLimits::status).collect(),
            rotations: self.standings.all(),
            secrets: self.keeper.status(),
            connections: self.connections_status(&state.config),
            observing: state.config.callers.iter().filter_map(observing).collect(),
        }
    }

    fn caller_names(&self) -> Vec<String> {
        self.state().config.callers.iter().map(|caller| caller.name.clone()).collect()
    }

    fn readiness(&self) -> Readiness {
        Readiness {
            snapshot_loaded: self.snapshot.load().is_some(),
            draining: *self.stage.borrow() != Stage::Serving,
            vault_read: self.keeper.all_read(),
            store_open: self.connections_status(&self.config()).is_none_or(|connections| connections.open),
        }
    }

    fn reload(&self) -> Pin<Box<dyn Future<Output = Result<ReloadReport, String>> + Send + '_>> {
        Box::pin(Loader::reload(self, Cause::ControlSocket))
    }

    fn set_log_filter(&self, filter: Option<&str>) -> Result<(), String> {
        if let Some(filter) = filter {
            // The file's own rule: a mistyped level would switch the log off.
            config::log_filter(filter).map_err(|problem| problem.to_string())?;
        }
        let mut state = self.state();
        let wanted = filter.unwrap_or(&state.config.log.filter);
        self.log.set_filter(wanted).map_err(|error| error.to_string())?;
        state.log_override = filter.is_some();
        Ok(())
    }
}

/// Whether a caller is in observe mode now.
fn observing(caller: &config::Caller) -> Option<Observing> {
    let until = caller.observe_until.filter(|until| *until > SystemTime::now())?;
    Some(Observing {
        caller: caller.name.clone(),
        until: humantime::format_rfc3339_seconds(until).to_string(),
    })
}
