//! PeekSort: the stable sort behind `builtins.sort`.
//!
//! A merge sort that uses the runs it finds by peeking at the middle of each range (Munro and Wild, "Nearly-Optimal
//! Mergesorts", ESA 2018), with insertion sort for up to 16 elements. Which pairs are compared, and in which order, is
//! part of what Nix promises in practice: a comparator that is no ordering still gives a result, and the same one as
//! in Nix 2.30 and newer.
//!
//! Invariants
//! - whatever the comparator answers, the sort ends after O(n log n) comparisons with a permutation of the elements;
//! - the recursion is at most logarithmic in depth: of two nested calls, the inner has at most three quarters of the
//!   outer's elements.

/// Sorts `items`; `less(a, b)` says whether `a` comes before `b`.
///
/// Costs O(n log n) comparisons, n - 1 for sorted input of more than 16, and room for at most n copies.
///
/// # Errors
/// The first error of `less`; the order of `items` is then unspecified, and elements may be there twice.
pub fn peek_sort<T: Clone, E>(items: &mut [T], less: impl FnMut(&T, &T) -> Result<bool, E>) -> Result<(), E> {
    let len = items.len();
    if len < 2 {
        return Ok(());
    }
    Sorter { items, less }.range(0, len, 0, len)
}

/// Longest range sorted by insertion.
const INSERTION_MAX: usize = 16;

struct Sorter<'a, T, F> {
    items: &'a mut [T],
    less: F,
}

impl<T: Clone, E, F: FnMut(&T, &T) -> Result<bool, E>> Sorter<'_, T, F> {
    /// Sorts `begin..end`, of which `begin..left_end` and `right_begin..end` are sorted already.
    fn range(&mut self, begin: usize, end: usize, left_end: usize, right_begin: usize) -> Result<(), E> {
        if left_end == end || right_begin == begin {
            return Ok(());
        }
        let len = end - begin;
        if len <= INSERTION_MAX {
            return self.insertion(begin, end);
        }
        let middle = begin + len / 2;
        if middle <= left_end {
            self.range(left_end, end, left_end + 1, right_begin)?;
            return self.merge(begin, left_end, end);
        }
        if middle >= right_begin {
            self.range(begin, right_begin, left_end, right_begin - 1)?;
            return self.merge(begin, right_begin, end);
        }
        let (run_begin, run_end) = self.run_around(middle, left_end, right_begin)?;
        if run_begin == begin && run_end == end {
            return Ok(());
        }
        if middle - run_begin < run_end - middle {
            self.range(begin, run_begin, left_end, run_begin.saturating_sub(1))?;
            self.range(run_begin, end, run_end, right_begin)?;
            self.merge(begin, run_begin, end)
        } else {
            self.range(begin, run_end, left_end, run_begin)?;
            self.range(run_end, end, run_end + 1, right_begin)?;
            self.merge(begin, run_end, end)
        }
    }

    /// The run that holds `middle - 1` and `middle`, within the limits; a falling one is reversed.
    fn run_around(&mut self, middle: usize, low: usize, high: usize) -> Result<(usize, usize), E> {
        let falling = self.is_less(middle, middle - 1)?;
        // The pair at the middle is asked for anew from each side, as the reference does.
        let mut at = middle;
        while at - 1 > low && self.is_less(at - 1, at - 2)? == falling {
            at -= 1;
        }
        let run_begin = at - 1;
        let mut run_end = middle - 1;
        while run_end + 1 != high && self.is_less(run_end + 1, run_end)? == falling {
            run_end += 1;
        }
        run_end += 1;
        if falling {
            self.items[run_begin..run_end].reverse();
        }
        Ok((run_begin, run_end))
    }

    fn insertion(&mut self, begin: usize, end: usize) -> Result<(), E> {
        for current in begin + 1..end {
            let mut at = current;
            while at != begin && self.is_less(at, at - 1)? {
                self.items.swap(at, at - 1);
                at -= 1;
            }
        }
        Ok(())
    }

    /// Merges two sorted neighbours; of equals the left one comes first.
    fn merge(&mut self, begin: usize, middle: usize, end: usize) -> Result<(), E> {
        let left = self.items[begin..middle].to_vec();
        let (mut from_left, mut from_right) = (0, middle);
        let mut out = begin;
        while from_left < left.len() && from_right < end {
            // `out` never passes `from_right`: as many slots are free as elements of the left side are to come.
            if (self.less)(&self.items[from_right], &left[from_left])? {
                self.items[out] = self.items[from_right].clone();
                from_right += 1;
            } else {
                self.items[out] = left[from_left].clone();
                from_left += 1;
            }
            out += 1;
        }
        // What is left of the right side is in its place already.
        self.items[out..out + left.len() - from_left].clone_from_slice(&left[from_left..]);
        Ok(())
    }

    fn is_less(&mut self, a: usize, b: usize) -> Result<bool, E> {
        (self.less)(&self.items[a], &self.items[b])
    }
}

#[cfg(test)]
mod tests;
