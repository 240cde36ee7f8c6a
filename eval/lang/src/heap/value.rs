//! The value word.
//!
//! Low three bits: what the word is. A word is either immediate (small integer, null, boolean) or the address of an object
//! in the heap, whose first word is its header ([`super::object`]).

use super::object::{Kind, Obj};

const TAG_BITS: u64 = 7;
const TAG_THUNK: u64 = 0;
const TAG_INT: u64 = 1;
const TAG_SET: u64 = 2;
const TAG_LIST: u64 = 3;
const TAG_STRING: u64 = 4;
const TAG_FUNC: u64 = 5;
const TAG_BOX: u64 = 6;
const TAG_IMM: u64 = 7;

const INT_MAX: i64 = (1 << 60) - 1;
const INT_MIN: i64 = -(1 << 60);

/// One word: a value, or a thunk that will become one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Value(u64);

/// The type of an evaluated value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Int,
    Bool,
    String,
    Path,
    Null,
    Set,
    List,
    Function,
    Float,
    /// Not evaluated.
    Thunk,
}

impl Value {
    /// `null`.
    pub(crate) const NULL: Self = Self(TAG_IMM);
    /// `false`.
    pub(crate) const FALSE: Self = Self((1 << 3) | TAG_IMM);
    /// `true`.
    pub(crate) const TRUE: Self = Self((2 << 3) | TAG_IMM);

    /// A boolean.
    #[inline]
    pub(crate) const fn bool(b: bool) -> Self {
        if b { Self::TRUE } else { Self::FALSE }
    }

    /// A small integer; `None` when it needs an object.
    #[inline]
    #[expect(
        clippy::cast_sign_loss,
        reason = "two's complement on purpose; `as_small_int` undoes it"
    )]
    pub(crate) const fn small_int(n: i64) -> Option<Self> {
        if n <= INT_MAX && n >= INT_MIN {
            Some(Self(((n as u64) << 3) | TAG_INT))
        } else {
            None
        }
    }

    /// The word itself, for tables of identity.
    #[inline]
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    const fn tag(self) -> u64 {
        self.0 & TAG_BITS
    }

    #[inline]
    fn tagged(obj: Obj, tag: u64) -> Self {
        Self(obj.address() | tag)
    }

    pub(super) fn thunk(obj: Obj) -> Self {
        Self::tagged(obj, TAG_THUNK)
    }

    pub(super) fn set(obj: Obj) -> Self {
        Self::tagged(obj, TAG_SET)
    }

    pub(super) fn list(obj: Obj) -> Self {
        Self::tagged(obj, TAG_LIST)
    }

    pub(super) fn string(obj: Obj) -> Self {
        Self::tagged(obj, TAG_STRING)
    }

    pub(super) fn func(obj: Obj) -> Self {
        Self::tagged(obj, TAG_FUNC)
    }

    pub(super) fn boxed(obj: Obj) -> Self {
        Self::tagged(obj, TAG_BOX)
    }

    /// The object behind the word; only for words that are not immediate.
    #[inline]
    pub(super) fn obj(self) -> Obj {
        Obj::from_address(self.0 & !TAG_BITS)
    }

    /// Whether the word is a thunk, evaluated or not.
    #[inline]
    pub(crate) const fn is_thunk(self) -> bool {
        self.tag() == TAG_THUNK
    }

    /// Whether the word is a set.
    #[inline]
    pub(crate) const fn is_set(self) -> bool {
        self.tag() == TAG_SET
    }

    /// Whether the word is a list.
    #[inline]
    pub(crate) const fn is_list(self) -> bool {
        self.tag() == TAG_LIST
    }

    /// Whether the word is a string.
    #[inline]
    pub(crate) const fn is_string(self) -> bool {
        self.tag() == TAG_STRING
    }

    /// Whether the word is a function of any kind.
    #[inline]
    pub(crate) const fn is_func(self) -> bool {
        self.tag() == TAG_FUNC
    }

    #[inline]
    pub(super) const fn is_box(self) -> bool {
        self.tag() == TAG_BOX
    }

    /// An integer's value.
    #[inline]
    pub(crate) fn as_int(self) -> Option<i64> {
        if self.tag() == TAG_INT {
            #[expect(clippy::cast_possible_wrap, reason = "undoes `small_int`")]
            return Some((self.0 as i64) >> 3);
        }
        if self.is_box() && self.obj().kind() == Kind::Int {
            return Some(self.obj().int());
        }
        None
    }

    /// A float's value.
    #[inline]
    pub(crate) fn as_float(self) -> Option<f64> {
        (self.is_box() && self.obj().kind() == Kind::Float).then(|| self.obj().float())
    }

    /// The type, without evaluating.
    pub(crate) fn kind_of(self) -> Type {
        match self.tag() {
            TAG_INT => Type::Int,
            TAG_SET => Type::Set,
            TAG_LIST => Type::List,
            TAG_STRING => Type::String,
            TAG_FUNC => Type::Function,
            TAG_BOX => match self.obj().kind() {
                Kind::Path => Type::Path,
                Kind::Float => Type::Float,
                _ => Type::Int,
            },
            TAG_IMM => {
                if self == Self::NULL {
                    Type::Null
                } else {
                    Type::Bool
                }
            }
            _ => Type::Thunk,
        }
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}@{:x}", self.kind_of(), self.0)
    }
}
