//! Password hashing with Argon2id, kept off the threads that serve connections.
//!
//! One hash costs about 25 ms and 19 MiB, so a burst of logins must neither stop an arbiter nor
//! take every core: hashes run on the blocking pool, a few at a time, behind a bounded queue.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, PasswordHash, Version};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::AuthError;
use crate::random::random_bytes;

/// Fewest characters of a new password.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longest password, in bytes of UTF-8.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Most passwords that may wait for a free permit.
pub const PASSWORD_WAITERS_MAX: usize = 64;

/// Guesses that a new password has to withstand, by the estimate of `zxcvbn`. A word of its list of common
/// passwords takes as many as it has before it.
const GUESSES_MIN: u64 = 20_000;
/// Characters from which on a password is not looked at for being common: to estimate it takes long.
const COMMON_CHARS_MAX: usize = 40;
/// What a client is told to wait when the queue is full, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;
/// Memory of one hash, in KiB. This and the next two: OWASP Password Storage Cheat Sheet, Argon2id.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// The least that the algorithm takes, in KiB.
#[cfg(feature = "faults")]
const CHEAP_MEMORY_KIB: u32 = 8;
const LANES: u32 = 1;
const SALT_BYTES: usize = 16;
/// Stands in for the hash of a user who does not exist; costs the same, matches no password.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes and checks passwords, a bounded number at a time. Clones share the bound.
#[derive(Clone)]
pub struct Passwords {
    /// One permit for each hash that may run now.
    running: Arc<Semaphore>,
    /// One permit for each caller that runs or waits.
    admitted: Arc<Semaphore>,
    /// Memory of one hash, in KiB.
    memory_kib: u32,
}

impl Passwords {
    /// Allows `permits` hashes at the same time; 0 counts as 1.
    pub fn new(permits: usize) -> Self {
        let permits = permits.max(1);
        Self {
            running: Arc::new(Semaphore::new(permits)),
            admitted: Arc::new(Semaphore::new(permits.saturating_add(PASSWORD_WAITERS_MAX))),
            memory_kib: MEMORY_KIB,
        }
    }

    /// Allows one hash fewer than the machine has cores, and at least one.
    pub fn for_this_machine() -> Self {
        Self::new(thread::available_parallelism().map_or(1, NonZero::get).saturating_sub(1))
    }

    /// The same with hashes that protect nobody, for tests that are about something else: hundreds of
    /// servers with a few people each would spend their time on passwords.
    #[cfg(feature = "faults")]
    #[must_use]
    pub fn cheap(self) -> Self {
        Self { memory_kib: CHEAP_MEMORY_KIB, ..self }
    }

    /// Hashes a new password into a PHC string that holds its salt and parameters.
    ///
    /// The password is taken as the bytes that were typed, without Unicode normalisation. It is
    /// wiped from memory afterwards. Waits for at most [`PASSWORD_WAITERS_MAX`] other hashes. `about` is
    /// what everybody knows of its user, such as their name: it makes no password.
    ///
    /// # Errors
    /// [`AuthError::BadPassword`] when it breaks a rule or is one that is tried first, [`AuthError::Busy`] when the queue is full,
    /// [`AuthError::Internal`] when the system fails.
    pub async fn hash(&self, password: String, about: &[&str]) -> Result<String, AuthError> {
        let password = Zeroizing::new(password);
        check_new(&password)?;
        let about: Vec<String> = about.iter().map(|text| (*text).to_owned()).collect();
        let memory_kib = self.memory_kib;
        self.run(move || {
            refuse_common(&password, &about)?;
            hash_now(&password, memory_kib)
        })
        .await
    }

    /// Says whether `password` is the one behind `stored`, a string that [`Self::hash`] made.
    ///
    /// `None` stands for a user who does not exist: the answer is `false` and takes as long. Waits
    /// like [`Self::hash`].
    ///
    /// # Errors
    /// [`AuthError::BadPassword`] when the password is too long for anybody's, [`AuthError::Busy`]
    /// when the queue is full, [`AuthError::Internal`] when `stored` is not such a string.
    pub async fn verify(
        &self,
        password: String,
        stored: Option<String>,
    ) -> Result<bool, AuthError> {
        let password = Zeroizing::new(password);
        check_length(&password)?;
        self.run(move || {
            let matches = verify_now(&password, stored.as_deref().unwrap_or(DUMMY_HASH))?;
            Ok(matches && stored.is_some())
        })
        .await
    }

    /// Runs `job` on the blocking pool when its turn comes. The permits travel with the job, so a
    /// caller who goes away does not let another hash start too early.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, AuthError> + Send + 'static,
    ) -> Result<T, AuthError> {
        let Ok(admitted) = self.admitted.clone().try_acquire_owned() else {
            return Err(AuthError::Busy { retry_after_ms: RETRY_AFTER_MS });
        };
        let running = self.running.clone().acquire_owned().await.map_err(AuthError::internal)?;
        let task = tokio::task::spawn_blocking(move || {
            let result = job();
            drop((running, admitted));
            result
        });
        task.await.map_err(AuthError::internal)?
    }
}

fn check_new(password: &str) -> Result<(), AuthError> {
    check_length(password)?;
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(bad_password(
            "password_too_short",
            format!("the password needs at least {PASSWORD_CHARS_MIN} characters"),
        ));
    }
    if password.trim().is_empty() {
        let message = "the password must not be only spaces".to_owned();
        return Err(bad_password("password_blank", message));
    }
    Ok(())
}

/// Refuses what whoever guesses passwords tries first: the common ones, their usual variations, runs of
/// keys, and what is known of the user.
fn refuse_common(password: &str, about: &[String]) -> Result<(), AuthError> {
    if password.chars().count() > COMMON_CHARS_MAX {
        return Ok(());
    }
    let about: Vec<&str> = about.iter().flat_map(|text| words(text)).collect();
    if zxcvbn::zxcvbn(password, &about).guesses() >= GUESSES_MIN {
        return Ok(());
    }
    let message = "the password is one of those that are tried first: take a longer one".to_owned();
    Err(bad_password("password_common", message))
}

/// A text and its parts, such as the name in an e-mail address.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).chain([text]).filter(|word| word.len() > 2)
}

fn check_length(password: &str) -> Result<(), AuthError> {
    if password.len() <= PASSWORD_BYTES_MAX {
        return Ok(());
    }
    Err(bad_password(
        "password_too_long",
        format!("the password may have at most {PASSWORD_BYTES_MAX} bytes"),
    ))
}

fn bad_password(reason: &'static str, message: String) -> AuthError {
    AuthError::BadPassword { reason, message }
}

fn hash_now(password: &str, memory_kib: u32) -> Result<String, AuthError> {
    let params = Params::new(memory_kib, PASSES, LANES, None).map_err(text_error)?;
    let salt = random_bytes::<SALT_BYTES>()?;
    let hash: PasswordHash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(text_error)?;
    Ok(hash.to_string())
}

fn verify_now(password: &str, stored: &str) -> Result<bool, AuthError> {
    let stored = PasswordHash::new(stored).map_err(text_error)?;
    // The parameters come from the stored string, so older hashes stay good when ours change.
    match Argon2::default().verify_password(password.as_bytes(), &stored) {
        Ok(()) => Ok(true),
        Err(HashError::PasswordInvalid) => Ok(false),
        Err(error) => Err(text_error(error)),
    }
}

/// The crate's errors do not all implement `std::error::Error`.
#[expect(clippy::needless_pass_by_value, reason = "it is given to `map_err`")]
fn text_error(error: impl ToString) -> AuthError {
    AuthError::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    use super::*;

    fn reason(result: Result<impl Sized, AuthError>) -> &'static str {
        match result {
            Err(AuthError::BadPassword { reason, .. }) => reason,
            Err(error) => panic!("{error}"),
            Ok(_) => "accepted",
        }
    }

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new(1);
        let stored = passwords.hash("correct horse".to_owned(), &[]).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, passwords.hash("correct horse".to_owned(), &[]).await.unwrap());
        assert!(passwords.verify("correct horse".to_owned(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify("correct horsf".to_owned(), Some(stored.clone())).await.unwrap());
        assert!(!passwords.verify(String::new(), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn composed_and_decomposed_letters_are_different_passwords() {
        let passwords = Passwords::new(1);
        let stored = passwords.hash("caf\u{e9} au lait".to_owned(), &[]).await.unwrap();
        let decomposed = "cafe\u{301} au lait".to_owned();
        assert!(!passwords.verify(decomposed, Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn every_password_rule_has_its_reason() {
        let passwords = Passwords::new(1);
        for (password, expected) in [
            (String::new(), "password_too_short"),
            ("1234567".to_owned(), "password_too_short"),
            ("äöüäöüä".to_owned(), "password_too_short"),
            (" ".repeat(9), "password_blank"),
            ("x".repeat(PASSWORD_BYTES_MAX + 1), "password_too_long"),
            ("x".repeat(PASSWORD_BYTES_MAX), "accepted"),
            ("12345678".to_owned(), "password_common"),
            ("Password1".to_owned(), "password_common"),
            ("p4ssw0rd".to_owned(), "password_common"),
            ("qwertyuiop".to_owned(), "password_common"),
            ("aaaaaaaaaaaa".to_owned(), "password_common"),
            ("vk8!tq2m".to_owned(), "accepted"),
        ] {
            assert_eq!(reason(passwords.hash(password.clone(), &[]).await), expected, "{password}");
        }
        let long = "x".repeat(PASSWORD_BYTES_MAX + 1);
        assert_eq!(reason(passwords.verify(long, None).await), "password_too_long");
    }

    #[tokio::test]
    async fn what_is_known_of_a_user_makes_no_password() {
        let passwords = Passwords::new(1);
        let about = ["zebulon.quist@example.com", "zquist"];
        for password in ["zebulon1", "quistzebulon", "Zquist99"] {
            let found = reason(passwords.hash(password.to_owned(), &about).await);
            assert_eq!(found, "password_common", "{password}");
        }
        assert_eq!(reason(passwords.hash("vk8!tq2m".to_owned(), &about).await), "accepted");
    }

    #[tokio::test]
    async fn an_unknown_user_costs_what_a_wrong_password_costs() {
        let passwords = Passwords::new(1);
        let stored = passwords.hash("correct horse".to_owned(), &[]).await.unwrap();
        let (real, dummy) =
            (PasswordHash::new(&stored).unwrap(), PasswordHash::new(DUMMY_HASH).unwrap());
        assert_eq!(
            (real.algorithm, real.version, &real.params),
            (dummy.algorithm, dummy.version, &dummy.params)
        );
        assert_eq!(real.hash.unwrap().len(), dummy.hash.unwrap().len());

        let started = Instant::now();
        assert!(!passwords.verify("anything".to_owned(), None).await.unwrap());
        let spent = started.elapsed();
        // Far below one hash, far above the time of a lookup that gives up at once.
        assert!(spent > Duration::from_millis(2), "{spent:?}");
    }

    #[tokio::test]
    async fn a_full_queue_is_refused_and_takes_callers_again_later() {
        let passwords = Passwords::new(1);
        let turn = passwords.running.clone().acquire_owned().await.unwrap();
        let waiting: Vec<_> = (0..=PASSWORD_WAITERS_MAX)
            .map(|_| {
                tokio::spawn({
                    let passwords = passwords.clone();
                    async move { passwords.run(|| Ok(())).await }
                })
            })
            .collect();
        while passwords.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = passwords.hash("correct horse".to_owned(), &[]).await;
        assert!(matches!(refused, Err(AuthError::Busy { retry_after_ms: RETRY_AFTER_MS })));

        drop(turn);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert_eq!(reason(passwords.hash("correct horse".to_owned(), &[]).await), "accepted");
    }

    #[tokio::test]
    async fn no_more_hashes_run_at_once_than_there_are_permits() {
        const PERMITS: usize = 2;
        let passwords = Passwords::new(PERMITS);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let pair = Arc::new(Barrier::new(PERMITS));
        let jobs: Vec<_> = (0..4 * PERMITS)
            .map(|_| {
                let (passwords, running, most, pair) =
                    (passwords.clone(), running.clone(), most.clone(), pair.clone());
                tokio::spawn(async move {
                    let job = move || {
                        most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                        pair.wait();
                        running.fetch_sub(1, SeqCst);
                        Ok(())
                    };
                    passwords.run(job).await
                })
            })
            .collect();
        for job in jobs {
            job.await.unwrap().unwrap();
        }
        assert_eq!(most.load(SeqCst), PERMITS);
    }

    /// Whoever waits for a permit holds no thread: of two one is left for whatever else blocks.
    #[test]
    fn hashes_that_wait_leave_the_threads_to_others() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.max_blocking_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let passwords = Passwords::new(1);
            let (go_on, held) = std::sync::mpsc::channel::<()>();
            let first = tokio::spawn({
                let passwords = passwords.clone();
                async move { passwords.run(move || Ok(held.recv().is_ok())).await }
            });
            let waiting: Vec<_> = (0..PASSWORD_WAITERS_MAX)
                .map(|_| {
                    let passwords = passwords.clone();
                    tokio::spawn(async move { passwords.run(|| Ok(())).await })
                })
                .collect();
            while passwords.admitted.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let read = tokio::task::spawn_blocking(|| "read");
            let read = tokio::time::timeout(Duration::from_secs(10), read).await;
            assert_eq!(read.unwrap().unwrap(), "read");
            go_on.send(()).unwrap();
            assert!(first.await.unwrap().unwrap());
            for task in waiting {
                task.await.unwrap().unwrap();
            }
        });
    }

    #[tokio::test]
    async fn a_broken_stored_hash_is_an_internal_error() {
        let result = Passwords::new(1).verify("x".to_owned(), Some("plain".to_owned())).await;
        assert!(matches!(result, Err(AuthError::Internal { .. })));
    }
}
