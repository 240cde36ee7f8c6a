//! Tokens of the Nix language and how Nix's messages name them.

/// The kind of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tok {
    Id,
    Int,
    Float,
    Path,
    HomePath,
    SearchPath,
    Uri,
    If,
    Then,
    Else,
    Assert,
    With,
    Let,
    In,
    Rec,
    Inherit,
    Or,
    Eq,
    Neq,
    Leq,
    Geq,
    Update,
    Concat,
    AndAnd,
    OrOr,
    Impl,
    PipeFrom,
    PipeInto,
    DollarCurly,
    Quote,
    IndOpen,
    Ellipsis,
    /// A one-byte token: the byte itself.
    Byte(u8),
    End,
    Invalid,
}

impl Tok {
    /// The name Nix's parser gives the token (`%token` declarations of its grammar).
    pub(crate) fn describe(self) -> String {
        let name = match self {
            Self::Id => "identifier",
            Self::Int => "integer",
            Self::Float => "floating-point literal",
            Self::Path => "path",
            Self::HomePath => "'~/…' path",
            Self::SearchPath => "'<…>' path",
            Self::Uri => "URI",
            Self::If => "'if'",
            Self::Then => "'then'",
            Self::Else => "'else'",
            Self::Assert => "'assert'",
            Self::With => "'with'",
            Self::Let => "'let'",
            Self::In => "'in'",
            Self::Rec => "'rec'",
            Self::Inherit => "'inherit'",
            Self::Or => "'or'",
            Self::Eq => "'=='",
            Self::Neq => "'!='",
            Self::Leq => "'<='",
            Self::Geq => "'>='",
            Self::Update => "'//'",
            Self::Concat => "'++'",
            Self::AndAnd => "'&&'",
            Self::OrOr => "'||'",
            Self::Impl => "'->'",
            Self::PipeFrom => "'<|'",
            Self::PipeInto => "'|>'",
            Self::DollarCurly => "'${'",
            Self::Quote => "'\"'",
            Self::IndOpen => "start of an indented string",
            Self::Ellipsis => "'...'",
            Self::Byte(b) => return format!("'{}'", char::from(b)),
            Self::End => "end of file",
            Self::Invalid => "invalid token",
        };
        name.to_owned()
    }
}

/// A token and where it stands: byte offsets into the text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Token {
    pub(crate) tok: Tok,
    pub(crate) start: u32,
    pub(crate) end: u32,
}
