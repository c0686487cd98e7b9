//! The other side: what it has comes into our own repository first, and goes out from there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, GitBranchPage, GitHead, GitPull, UserId};
use iris_store::root::{GitPart, GitWorkKind, StoredGit};

use super::clones::check_there;
use super::command::{Ran, Run};
use super::home::{on_disk, remove, remove_halves, size_of};
use super::settling::{Doing, Worked};
use super::source::{Way, is_there, way};
use super::{HEAD_BRANCH, Repository, branch_of, check_branch, conflict, text_of};

/// How often it is looked how large a repository has become.
const MEASURED_EVERY: Duration = Duration::from_millis(500);
/// Where a branch waits in our own repository that is sent.
const SENT: &str = "refs/iris/sent";
/// Where it is in the repository that it comes through.
const BRIDGED: &str = "refs/heads/sent";
/// How a repository of this machine receives what is sent: nothing that it names itself is run, neither for what
/// arrives nor for the files of who has it checked out.
const RECEIVE: &str = "--receive-pack=git -c core.hooksPath=/dev/null -c core.alternateRefsCommand=true \
                       -c receive.autogc=false -c receive.denyCurrentBranch=refuse receive-pack";
/// What our own repository has of the other side.
const MIRRORED: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
/// What the repository among the files has of it: branches that are gone go, tags that were made here stay.
const TRACKED: [(&str, &str); 2] =
    [("--prune", "+refs/heads/*:refs/remotes/origin/*"), ("--no-prune", "refs/tags/*:refs/tags/*")];

impl Repository<'_> {
    /// Where the project was cloned from.
    async fn stored(&self) -> Result<StoredGit, ApiError> {
        let found = self.node.root_reader.git(&self.project.id).await;
        let found = found.map_err(|error| error.to_api())?;
        let message = "the project was not cloned from a repository";
        found.ok_or_else(|| conflict("not_git", message))
    }

    /// A run of git in our own repository's directory, which reaches nobody.
    fn beside(&self, arguments: &[&str]) -> Run {
        Run::new(self.home.directory(), self.home.scratch(), &self.home, arguments)
    }

    /// Runs git where it reaches the other side, as long and as far as the settings allow.
    async fn reach(&self, by: &UserId, way: Way, arguments: &[&str]) -> Result<Ran, ApiError> {
        let settings = self.node.services.settings.git;
        let Way { protocol, network, read_only, writable, config, .. } = way;
        let mut run = Run {
            protocol: Some(protocol),
            network,
            config,
            time: settings.time,
            ..self.beside(arguments)
        };
        run.read_only.extend(read_only);
        if let Some(writable) = writable {
            // The second place that a command may write to; nothing temporary goes there.
            run.scratch = writable;
            let home = self.home.directory().display().to_string();
            run.env.extend(["HOME", "TMPDIR"].map(|name| (name.to_owned(), home.clone())));
        }
        self.remove_halves().await?;
        let quota = self.node.services.settings.quotas.file_bytes_max;
        let bytes_max = if quota == 0 { settings.bytes_max } else { quota.min(settings.bytes_max) };
        let ran = tokio::select! {
            ran = run.within(self.sandbox) => ran?,
            error = self.hindered(by, bytes_max) => return Err(error),
        };
        // One that was there before it was looked at.
        if measured(self.home.directory()).await > bytes_max {
            return Err(over(bytes_max));
        }
        let ran = if ran.code == 0 { Ok(ran) } else { Err(ran.refusal_of_other_side()) };
        ran.map_err(|mut error| {
            self.project.kept.secrets.mask_in(&mut error.message);
            error
        })
    }

    /// Ends when what is kept is larger than that, or when who asked for it may not any more.
    async fn hindered(&self, by: &UserId, bytes_max: u64) -> ApiError {
        loop {
            tokio::time::sleep(MEASURED_EVERY).await;
            if let Err(error) = check_there(self.node, &self.project.id, by).await {
                return error;
            }
            if measured(self.home.directory()).await > bytes_max {
                return over(bytes_max);
            }
        }
    }

    /// Has our own repository have what the other side has.
    pub(super) async fn mirror(&self, git: &StoredGit, by: &UserId) -> Result<(), ApiError> {
        let way = way(&self.node.services, self.project, git).await?;
        let (mirror, url) = (self.home.mirror(), way.url.clone());
        let mirror = text_of(&mirror)?;
        if is_there(Path::new(mirror)).await? {
            let place = format!("--git-dir={mirror}");
            let mut arguments =
                vec![&*place, "fetch", "--quiet", "--prune", "--force", "--", &*url];
            arguments.extend(MIRRORED);
            return self.reach(by, way, &arguments).await.map(drop);
        }
        let branch = git.source.branch.as_ref().map(|branch| format!("--branch={branch}"));
        let mut arguments =
            vec!["clone", "--quiet", "--bare", "--no-local", "--no-hardlinks", "--template="];
        arguments.extend(branch.as_deref());
        // Under another name until it is whole.
        let half = format!("{mirror}.half");
        let path = PathBuf::from(&half);
        on_disk(move || remove(&path)).await?;
        arguments.extend(["--", &url, &half]);
        self.reach(by, way, &arguments).await?;
        let (half, mirror) = (PathBuf::from(half), PathBuf::from(mirror));
        on_disk(move || std::fs::rename(half, mirror)).await
    }

    /// Removes what runs that were cut off left in our own repository. Only one works there at a time.
    async fn remove_halves(&self) -> Result<(), ApiError> {
        let mirror = self.home.mirror();
        on_disk(move || remove_halves(&mirror)).await
    }

    /// The branch that the other side has checked out.
    pub(super) async fn mirrored_branch(&self) -> Result<Option<String>, ApiError> {
        let place = format!("--git-dir={}", text_of(&self.home.mirror())?);
        let run = self.beside(&[&[&*place][..], &HEAD_BRANCH].concat());
        Ok(branch_of(&run.within(self.sandbox).await?))
    }

    /// Has the repository among the files know what our own one has.
    pub(super) async fn track(&self) -> Result<(), ApiError> {
        let mirror = self.home.mirror();
        for (prune, refs) in TRACKED {
            let place = text_of(&mirror)?;
            let arguments = [
                "fetch",
                "--quiet",
                prune,
                "--no-tags",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--",
                place,
                refs,
            ];
            let run = Run { protocol: Some("file"), ..self.run(&arguments) };
            let ran = run.within(self.sandbox).await?;
            // A tag that is another one here stays.
            if ran.code != 0 && !ran.errors.contains("would clobber existing tag") {
                return Err(ran.refusal());
            }
        }
        Ok(())
    }

    /// Looks at the branches of the other side.
    pub(crate) async fn fetch(&self, doing: &Doing) -> Result<Worked<GitBranchPage>, ApiError> {
        let git = self.stored().await?;
        let alone = self.alone().await?;
        self.mirror(&git, &doing.by.id).await?;
        self.working(doing, GitWorkKind::Track, self.track()).await?;
        Ok(Worked::new(self.branches().await?).alone(alone))
    }

    /// Brings what the other side has into the current branch.
    pub(crate) async fn pull(
        &self,
        doing: &Doing,
        request: &GitPull,
    ) -> Result<Worked<GitHead>, ApiError> {
        let git = self.stored().await?;
        let _alone = self.alone().await?;
        self.mirror(&git, &doing.by.id).await?;
        self.working(doing, GitWorkKind::Track, self.track()).await?;
        self.end_work(GitPart::Branches).await?;
        self.merge(doing, request.merge).await
    }

    /// Sends a branch to the other side.
    pub(crate) async fn push(
        &self,
        doing: &Doing,
        branch: Option<String>,
    ) -> Result<Worked<GitHead>, ApiError> {
        let git = self.stored().await?;
        let branch = match branch {
            Some(branch) => branch,
            None => self
                .current_branch()
                .await?
                .ok_or_else(|| conflict("no_branch", "no branch is checked out"))?,
        };
        check_branch("branch", &branch)?;
        let here = format!("refs/heads/{branch}");
        let alone = self.alone().await?;
        self.remove_halves().await?;
        // Whatever the branch becomes meanwhile, this is what is sent.
        let commit = self.commit_of(&here).await?.ok_or_else(|| ApiError::not_found("branch"))?;
        let mirror = self.home.mirror();
        if !is_there(&mirror).await? {
            self.mirror(&git, &doing.by.id).await?;
        }
        self.take(&commit).await?;
        let place = format!("--git-dir={}", text_of(&mirror)?);
        let way = way(&self.node.services, self.project, &git).await?;
        let (url, sent) = (way.url.clone(), format!("{SENT}:{here}"));
        let mut arguments = vec![&*place, "push", "--no-verify"];
        if way.protocol == "file" {
            // It runs here, where nothing of our configuration reaches it.
            arguments.push(RECEIVE);
        }
        arguments.extend(["--", &url, &sent]);
        self.reach(&doing.by.id, way.into_writing(), &arguments).await?;
        // What was sent is what the other side has.
        let tracked = format!("refs/remotes/origin/{branch}");
        let track = async { self.ask(&["update-ref", &tracked, &commit]).await.map(drop) };
        self.working(doing, GitWorkKind::Track, track).await?;
        let run = self.beside(&[&place, "update-ref", &here, SENT]);
        run.within(self.sandbox).await?.worked()?;
        let head = GitHead { branch: Some(branch), commit: Some(commit) };
        Ok(Worked::of_head(head, None).alone(alone))
    }

    /// Has our own repository have a commit of the one among the files, whose configuration anybody may have
    /// written: only its objects are read, through a repository of ours.
    async fn take(&self, commit: &str) -> Result<(), ApiError> {
        let (left, bridge, mirror) = (self.home.bridge(), self.home.bridge(), self.home.mirror());
        let (bridge, files) = (text_of(&bridge)?, self.places.project.clone());
        on_disk(move || remove(&left)).await?;
        let reads = |arguments: &[&str]| {
            let mut run = self.beside(arguments);
            run.read_only.push(files.clone());
            run
        };
        let template = self.home.bridge_template();
        let template = format!("--template={}", text_of(&template)?);
        let format = if commit.len() > 40 { "sha256" } else { "sha1" };
        let format = format!("--object-format={format}");
        let run = reads(&["init", "--quiet", "--bare", &template, &format, bridge]);
        run.within(self.sandbox).await?.worked()?;
        let place = format!("--git-dir={bridge}");
        reads(&[&place, "update-ref", BRIDGED, commit]).within(self.sandbox).await?.worked()?;
        let place = format!("--git-dir={}", text_of(&mirror)?);
        let taken = format!("+{BRIDGED}:{SENT}");
        let run = reads(&[&place, "fetch", "--quiet", "--no-tags", "--", bridge, &taken]);
        let run = Run { protocol: Some("file"), ..run };
        run.within(self.sandbox).await?.worked().map(drop)
    }
}

async fn measured(directory: &Path) -> u64 {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || size_of(&directory)).await.unwrap_or_default()
}

fn over(bytes_max: u64) -> ApiError {
    let message = format!("the repository has more than {bytes_max} bytes");
    ApiError::new(ErrorCode::PayloadTooLarge, message).reason("git_too_large")
}
