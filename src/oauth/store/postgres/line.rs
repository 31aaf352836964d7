//! The connection to the database: one, that all calls share, and that is made anew when it is lost.
//!
//! In: where the database is, and statements. Out: rows, or why not, always within a time. Statements of several calls
//! are on their way at once; each stands for itself, since a transaction would mix with what others send. None is
//! prepared, so there is nothing to prepare again. The password is asked for with each new connection; the client's
//! copy of it is not wiped.
//!
//! What must never happen: a call waits without end; a connection that missed its time is used again.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
    time::timeout,
};
use tokio_postgres::{
    Client, Connection, Row, Socket,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    error::{Error, Fault},
    schema,
    settings::Settings,
};
use crate::{oauth::seal::StoreId, vault};

/// A value, and its type there.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) struct Line {
    settings: Settings,
    tls: MakeRustlsConnect,
    /// The store that was opened.
    id: OnceLock<StoreId>,
    session: tokio::sync::Mutex<Option<Arc<Session>>>,
}

/// A connection, and the task that moves its bytes.
pub(super) struct Session {
    pub(super) client: Client,
    driver: AbortHandle,
    /// The client learns only later that nobody moves its bytes any more.
    is_given_up: AtomicBool,
}

impl Line {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        settings.check_schema()?;
        let tls = settings.tls()?;
        Ok(Self { settings, tls, id: OnceLock::new(), session: tokio::sync::Mutex::default() })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The session that the store was opened with is used from now on, and later ones must lead to the same store.
    pub(super) async fn adopt(&self, id: StoreId, session: Session) {
        // Once: a line belongs to one store.
        let _ = self.id.set(id);
        *self.session.lock().await = Some(Arc::new(session));
    }

    /// What one statement gives.
    pub(super) async fn rows(&self, sql: &str, values: &[Parameter<'_>]) -> Result<Vec<Row>, Fault> {
        let session = self.session().await?;
        session.within(self.settings.answer_timeout(), session.client.query_typed(sql, values)).await
    }

    /// The only row, if there is one.
    pub(super) async fn row(&self, sql: &str, values: &[Parameter<'_>]) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Whether one statement changed anything.
    pub(super) async fn changed(&self, sql: &str, values: &[Parameter<'_>]) -> Result<bool, Fault> {
        let session = self.session().await?;
        let done = session.client.execute_typed(sql, values);
        Ok(session.within(self.settings.answer_timeout(), done).await? > 0)
    }

    /// The one that is there, or a new one. Whoever comes meanwhile waits for it.
    async fn session(&self) -> Result<Arc<Session>, Fault> {
        let limit = self.settings.connect_timeout;
        let session = timeout(limit, async {
            let mut kept = self.session.lock().await;
            if let Some(session) = kept.as_ref().filter(|session| session.is_usable()) {
                return Ok(session.clone());
            }
            *kept = None;
            let session = self.dial().await?;
            if let Some(id) = self.id.get() {
                schema::check(&session.client, *id).await?;
            }
            let session = Arc::new(session);
            *kept = Some(session.clone());
            Ok(session)
        });
        session.await.unwrap_or(Err(Fault::ConnectTimeout(limit)))
    }

    /// A new connection, for whoever opens the store.
    pub(super) async fn first(&self) -> Result<Session, Fault> {
        let limit = self.settings.connect_timeout;
        timeout(limit, self.dial()).await.unwrap_or(Err(Fault::ConnectTimeout(limit)))
    }

    #[expect(clippy::disallowed_methods, reason = "the database asks for its password")]
    async fn dial(&self) -> Result<Session, Fault> {
        let mut config = self.settings.config();
        if let Some(look_up) = &self.settings.password {
            let password = look_up().await.map_err(|source| Fault::Password(Box::new(source)))?;
            config.password(password.expose());
        }
        Ok(driven(config.connect(self.tls.clone()).await?))
    }
}

impl Session {
    fn is_usable(&self) -> bool {
        !self.is_given_up.load(Ordering::Relaxed) && !self.client.is_closed()
    }

    /// `statement`'s answer. A connection that owes one for too long is given up, with all that is on its way.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        statement: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Fault> {
        match timeout(limit, statement).await {
            Ok(done) => Ok(done?),
            Err(_) => {
                self.is_given_up.store(true, Ordering::Relaxed);
                self.driver.abort();
                Err(Fault::AnswerTimeout(limit))
            }
        }
    }
}

/// Whoever waits for an answer has the session; without any, nothing is worth waiting for.
impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn driven<T>((client, connection): (Client, Connection<Socket, T>)) -> Session
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            let reason = vault::chain(&Fault::from(error));
            tracing::warn!(reason, "the connection to the database of connections ended");
        }
    });
    Session { client, driver: driver.abort_handle(), is_given_up: AtomicBool::new(false) }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.settings.place())
    }
}
