//! The pieces of a command line and the reasons why one of them is opaque.

/// What a command line would do, as pieces that are judged one by one.
///
/// From [`read`](crate::read) it has at least one piece, in the order of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The pieces; the line may run only if each of them may.
    pub pieces: Vec<Piece>,
}

/// One thing that a command line would do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Piece {
    /// Runs one program or builtin of the shell with exactly these words.
    Command {
        /// Program and arguments, quotes removed, never empty.
        words: Vec<String>,
        /// The words as a person would type them: joined by one space, quoted where the shell would
        /// read them otherwise. Reading it again gives the same words. Rules match this.
        text: String,
    },
    /// Creates, replaces or extends a file.
    Write {
        /// As written, quotes removed, not resolved: relative ones start in the working directory.
        path: String,
        /// Whether what was in the file stays.
        append: bool,
    },
    /// Reads a file by a redirection.
    Read {
        /// As written, quotes removed, not resolved: relative ones start in the working directory.
        path: String,
    },
    /// Does something that the text does not settle: a person is asked.
    ///
    /// A rule may refuse it by its text; none may allow it.
    Opaque {
        /// What could not be settled.
        why: Reason,
        /// The part of the line, with invisible characters escaped, at most 16 KiB and a note.
        text: String,
    },
}

/// Why a piece is opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// There is nothing but blanks.
    Empty,
    /// There is nothing but a comment.
    OnlyComment,
    /// Variables are set and no command is run.
    OnlyAssignments,
    /// More than [`COMMAND_BYTES_MAX`](crate::COMMAND_BYTES_MAX) bytes.
    TooLong,
    /// Nested deeper than [`NESTING_MAX`](crate::NESTING_MAX), or shells in shells in shells.
    TooDeep,
    /// The parser gave up after its bound of work.
    TooComplex,
    /// Contains a NUL.
    Nul,
    /// Contains control, invisible or direction-changing characters.
    HiddenCharacters,
    /// Not a command line that both readers understand.
    Syntax,
    /// The two readers see different commands.
    Ambiguous,
    /// A variable is expanded.
    Variable,
    /// A command is substituted; it has pieces of its own.
    Substitution,
    /// Arithmetic, which can run commands through subscripts.
    Arithmetic,
    /// Braces expand to several words.
    Braces,
    /// A pattern expands to names of files, which may look like options.
    Glob,
    /// A tilde expands to a home directory.
    Tilde,
    /// `$'..'` or `$".."`.
    DollarQuote,
    /// A here-document with expansions.
    HereDocument,
    /// A variable that may change what programs do.
    Assignment,
    /// `eval`, `source`, `trap`, `alias` and others that run text.
    Evaluates,
    /// A builtin that changes the shell for what follows.
    ShellState,
    /// A function is defined.
    Function,
    /// `for`, `select` or `case`, which set or match variables.
    Loop,
    /// `[[ .. ]]`, which can evaluate arithmetic.
    Test,
    /// Runs beside the shell as a coprocess.
    Coprocess,
    /// The shell itself would open a network connection.
    Network,
    /// Runs with the rights of another user.
    OtherUser,
    /// Runs on another machine or opens a connection to one.
    OtherMachine,
    /// Runs in, or works on, another directory than the one that is judged.
    OtherDirectory,
    /// Runs a program that is given as text or on standard input.
    ProgramText,
    /// An editor, pager, debugger or terminal that can run anything.
    Interactive,
    /// A program that runs others in ways that are not read.
    RunsOthers,
    /// An option that makes the program run another one.
    OptionRuns,
    /// An option that makes the program write or send a file.
    OptionWrites,
    /// An option that is not known of a program that runs others.
    UnknownOption,
    /// Arguments that come from another program or from the file system.
    UnknownArguments,
    /// A program at a path of its own that is named like one that runs others.
    ProgramPath,
    /// Not a command of the program that is known; it may be an alias for anything.
    Alias,
}

impl Reason {
    /// One sentence for the person who is asked.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Empty => "The command is empty.",
            Self::OnlyComment => "The command is only a comment.",
            Self::OnlyAssignments => "The command only sets variables.",
            Self::TooLong => "The command is too long to be read.",
            Self::TooDeep => "The command is nested too deeply to be read.",
            Self::TooComplex => "The command is too complex to be read.",
            Self::Nul => "The command contains a NUL character.",
            Self::HiddenCharacters => "The command contains characters that cannot be seen.",
            Self::Syntax => "The command could not be understood.",
            Self::Ambiguous => "The command could be understood in more than one way.",
            Self::Variable => "It depends on a variable.",
            Self::Substitution => "It depends on the output of another command.",
            Self::Arithmetic => "It depends on arithmetic.",
            Self::Braces => "It depends on an expansion of braces.",
            Self::Glob => "It depends on which files match a pattern.",
            Self::Tilde => "It depends on where a home directory is.",
            Self::DollarQuote => "It contains a quotation that is not read.",
            Self::HereDocument => "It depends on expansions in a here-document.",
            Self::Assignment => "It sets a variable that may change what programs do.",
            Self::Evaluates => "It runs text as a command.",
            Self::ShellState => "It changes the shell for the commands that follow.",
            Self::Function => "It defines a function.",
            Self::Loop => "It sets or matches variables in a loop or a case.",
            Self::Test => "It evaluates a conditional expression.",
            Self::Coprocess => "It runs a coprocess.",
            Self::Network => "It opens a network connection in the shell.",
            Self::OtherUser => "It runs with the rights of another user.",
            Self::OtherMachine => "It reaches another machine.",
            Self::OtherDirectory => "It works in another directory.",
            Self::ProgramText => "It runs a program that is given as text or input.",
            Self::Interactive => "It starts a program in which anything can be run.",
            Self::RunsOthers => "It runs other programs in a way that is not read.",
            Self::OptionRuns => "It has an option that can run another program.",
            Self::OptionWrites => "It has an option that can write or send a file.",
            Self::UnknownOption => "It has an option that is not known.",
            Self::UnknownArguments => "It gets arguments that are not known before it runs.",
            Self::ProgramPath => "It runs a program at an unusual place.",
            Self::Alias => "It may be an alias for another command.",
        }
    }
}
