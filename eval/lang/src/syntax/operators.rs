//! Operators: precedence climbing.
//!
//! Strengths and associations are those of Nix's grammar (`src/libexpr/parser.y`), from `->` to unary minus.

use super::ast::{BinOp, CallOp, Expr, ExprId};
use super::parser::{P, Parser};
use super::token::Tok;

/// Binding strength and shape of a binary operator.
#[derive(Clone, Copy)]
struct Infix {
    power: u8,
    /// Least power of an operator in the right operand.
    right: u8,
    nonassoc: bool,
}

const fn infix(tok: Tok) -> Option<Infix> {
    let (power, right, nonassoc) = match tok {
        Tok::Impl => (1, 1, false),
        Tok::OrOr => (2, 3, false),
        Tok::AndAnd => (3, 4, false),
        Tok::Eq | Tok::Neq => (4, 5, true),
        Tok::Byte(b'<' | b'>') | Tok::Leq | Tok::Geq => (5, 6, true),
        Tok::Update => (6, 6, false),
        Tok::Byte(b'+' | b'-') => (8, 9, false),
        Tok::Byte(b'*' | b'/') => (9, 10, false),
        Tok::Concat => (10, 10, false),
        Tok::Byte(b'?') => (11, 12, false),
        _ => return None,
    };
    Some(Infix {
        power,
        right,
        nonassoc,
    })
}

const NOT_POWER: u8 = 7;
const NEGATE_POWER: u8 = 12;
impl Parser<'_, '_> {
    fn require_pipes(&self) -> P<()> {
        if self.settings.pipe_operators {
            return Ok(());
        }
        let feature = "pipe-operators";
        let text = format!(
            "experimental Nix feature '{feature}' is disabled; add '--extra-experimental-features {feature}' to enable it"
        );
        self.error(text, self.at())
    }

    /// Pipes, which bind least of all and do not mix.
    pub(super) fn pipes(&mut self) -> P<ExprId> {
        let mut left = self.operators(0)?;
        match self.tok.tok {
            Tok::PipeFrom => {
                let mut stack = Vec::new();
                while self.tok.tok == Tok::PipeFrom {
                    self.require_pipes()?;
                    stack.push((left, self.at()));
                    self.advance();
                    left = self.operators(0)?;
                }
                while let Some((f, at)) = stack.pop() {
                    left = self.call(at, f, left);
                }
            }
            Tok::PipeInto => {
                while self.tok.tok == Tok::PipeInto {
                    self.require_pipes()?;
                    let at = self.at();
                    self.advance();
                    let f = self.operators(0)?;
                    left = self.call(at, f, left);
                }
            }
            _ => {}
        }
        Ok(left)
    }

    /// `f arg`; an argument after a call joins that call.
    fn call(&mut self, at: u32, f: ExprId, arg: ExprId) -> ExprId {
        let mark = self.exprs.len();
        let (f, at) = self.reopen_call(f).unwrap_or((f, at));
        self.exprs.push(arg);
        let list = self.take_list(mark);
        self.ast.add(Expr::Call(f, list), at)
    }

    /// Operators that bind at least as strongly as `least`.
    fn operators(&mut self, least: u8) -> P<ExprId> {
        let mut left = self.prefix()?;
        let mut closed = u8::MAX;
        while let Some(op) = infix(self.tok.tok) {
            if op.power < least {
                break;
            }
            if op.power == closed {
                return Err(self.unexpected(&[]));
            }
            left = self.infix_operator(left, op)?;
            closed = if op.nonassoc { op.power } else { u8::MAX };
        }
        Ok(left)
    }

    fn prefix(&mut self) -> P<ExprId> {
        let at = self.at();
        let (power, not) = match self.tok.tok {
            Tok::Byte(b'!') => (NOT_POWER, true),
            Tok::Byte(b'-') => (NEGATE_POWER, false),
            _ => return self.application(),
        };
        self.enter()?;
        self.advance();
        let operand = self.operators(power)?;
        self.depth -= 1;
        if not {
            let at = self.ast.at(operand);
            return Ok(self.ast.add(Expr::Not(operand), at));
        }
        let zero = self.ast.add(Expr::Int(0), 0);
        Ok(self.ast.add(Expr::Op(CallOp::Neg, zero, operand), at))
    }

    fn infix_operator(&mut self, left: ExprId, op: Infix) -> P<ExprId> {
        let (tok, at) = (self.tok.tok, self.at());
        self.advance();
        if tok == Tok::Byte(b'?') {
            let path = self.attr_path()?;
            let base_at = self.ast.at(left);
            return Ok(self.ast.add(Expr::HasAttr(left, path), base_at));
        }
        self.enter()?;
        let right = self.operators(op.right)?;
        self.depth -= 1;
        let expr = match tok {
            Tok::Impl => Expr::Bin(BinOp::Impl, left, right),
            Tok::OrOr => Expr::Bin(BinOp::Or, left, right),
            Tok::AndAnd => Expr::Bin(BinOp::And, left, right),
            Tok::Eq => Expr::Bin(BinOp::Eq, left, right),
            Tok::Neq => Expr::Bin(BinOp::Neq, left, right),
            Tok::Update => Expr::Bin(BinOp::Update, left, right),
            Tok::Concat => Expr::Bin(BinOp::Concat, left, right),
            Tok::Leq => Expr::Op(CallOp::LessEq, left, right),
            Tok::Geq => Expr::Op(CallOp::GreaterEq, left, right),
            Tok::Byte(b'<') => Expr::Op(CallOp::Less, left, right),
            Tok::Byte(b'>') => Expr::Op(CallOp::Greater, left, right),
            Tok::Byte(b'-') => Expr::Op(CallOp::Sub, left, right),
            Tok::Byte(b'*') => Expr::Op(CallOp::Mul, left, right),
            Tok::Byte(b'/') => Expr::Op(CallOp::Div, left, right),
            _ => Expr::Plus(left, right),
        };
        Ok(self.ast.add(expr, at))
    }
}
