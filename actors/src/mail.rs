//! E-mails of the server: links that set a password or invite. They go out one after the other, beside
//! everything else; what waits has a bound, and so has the patience with the mail server.

use std::sync::Arc;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::AsyncSmtpTransport;
use lettre::{AsyncTransport, Message, Tokio1Executor};
use tokio::sync::mpsc;

use crate::supervision::detached;

/// Mails that may wait.
const WAITING_MAX: usize = 64;
/// How long one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a mail is tried, and how long after a failure.
const ATTEMPTS_MAX: u32 = 3;
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Which server sends, and in whose name.
#[derive(Clone)]
pub struct SmtpSettings {
    /// `smtps://`, or `smtp://` with or without `?tls=required`; with user and password where they are
    /// needed, so it is a secret.
    pub url: String,
    /// Who the mails are from.
    pub from: String,
}

impl std::fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpSettings").field("from", &self.from).finish_non_exhaustive()
    }
}

/// Why there is no mailer.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The URL of the mail server means nothing.
    #[error("the URL of the mail server is not one")]
    Url,
    /// The sender is no address.
    #[error("`{0}` is no e-mail address")]
    From(String),
}

type Transport = AsyncSmtpTransport<Tokio1Executor>;

impl SmtpSettings {
    /// Whether they can be used.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn check(&self) -> Result<(), MailError> {
        self.parts().map(drop)
    }

    fn parts(&self) -> Result<(Transport, Mailbox), MailError> {
        // Its own text would quote the URL, which may hold a password.
        let transport = Transport::from_url(&self.url).map_err(|_| MailError::Url)?;
        let transport = transport.timeout(Some(ATTEMPT_TIMEOUT)).build();
        let from = self.from.parse().map_err(|_| MailError::From(self.from.clone()))?;
        Ok((transport, from))
    }
}

/// A mail of plain text.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) subject: &'static str,
    /// May hold a secret: it is never logged.
    pub(crate) text: String,
}

/// Takes mails.
#[derive(Clone)]
pub struct Mailer(mpsc::Sender<Mail>);

impl Mailer {
    /// Starts sending, on the current arbiter, for as long as somebody holds this.
    ///
    /// # Errors
    /// [`MailError`].
    pub fn start(settings: &SmtpSettings) -> Result<Arc<Self>, MailError> {
        let (transport, from) = settings.parts()?;
        let (mailer, mut waiting) = mpsc::channel(WAITING_MAX);
        detached(async move {
            while let Some(mail) = waiting.recv().await {
                deliver(&transport, &from, mail).await;
            }
        });
        Ok(Arc::new(Self(mailer)))
    }

    /// Puts a mail on its way. Says whether there was room for it; nobody waits for the mail server.
    pub(crate) fn send(&self, mail: Mail) -> bool {
        let is_taken = self.0.try_send(mail).is_ok();
        if !is_taken {
            tracing::warn!("a mail was not sent: too many wait");
        }
        is_taken
    }
}

async fn deliver(transport: &Transport, from: &Mailbox, mail: Mail) {
    let Ok(to) = mail.to.parse::<Mailbox>() else {
        return tracing::warn!("a mail was not sent: its address cannot be written to");
    };
    let message = Message::builder().from(from.clone()).to(to).subject(mail.subject);
    // Names of people and projects have letters of all kinds.
    let message = match message.header(ContentType::TEXT_PLAIN).body(mail.text) {
        Ok(message) => message,
        Err(error) => return tracing::warn!(%error, "a mail was not sent"),
    };
    for attempt in 1..=ATTEMPTS_MAX {
        // The crate bounds each step, this the whole.
        let sent = tokio::time::timeout(ATTEMPT_TIMEOUT, transport.send(message.clone())).await;
        match sent {
            Ok(Ok(_)) => return,
            Ok(Err(error)) if error.is_permanent() => {
                return tracing::warn!(%error, "the mail server refused a mail");
            }
            Ok(Err(error)) => tracing::warn!(%error, attempt, "a mail was not sent"),
            Err(_) => tracing::warn!(attempt, "the mail server took too long"),
        }
        if attempt < ATTEMPTS_MAX {
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}
