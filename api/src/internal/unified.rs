//! Unified diffs, line by line, as Python's `difflib` makes them and upstream after it: which
//! lines count as the same is part of what clients see.

use std::collections::HashMap;

/// Lines around a change.
const CONTEXT: usize = 3;
/// In a text of so many lines, those that make up more than a hundredth do not anchor a match.
const MANY_LINES: usize = 200;

/// Equal lines at `old` and `new`.
#[derive(Clone, Copy)]
struct Block {
    old: usize,
    new: usize,
    length: usize,
}

/// A part of both texts, which is the same in both or not.
#[derive(Clone, Copy)]
struct Part {
    is_equal: bool,
    old: (usize, usize),
    new: (usize, usize),
}

/// The hunks in which the texts differ; empty when they do not.
pub fn diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let mut out = String::new();
    for hunk in hunks(parts(&old, &new)) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else {
            continue;
        };
        out.push_str(&format!(
            "@@ -{} +{} @@\n",
            range(first.old.0, last.old.1),
            range(first.new.0, last.new.1)
        ));
        let mut add = |sign: char, lines: &[&str]| {
            for line in lines {
                out.push(sign);
                out.push_str(line);
                out.push('\n');
            }
        };
        for part in hunk {
            if part.is_equal {
                add(' ', &old[part.old.0..part.old.1]);
            } else {
                add('-', &old[part.old.0..part.old.1]);
                add('+', &new[part.new.0..part.new.1]);
            }
        }
    }
    out
}

fn range(start: usize, end: usize) -> String {
    match end - start {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        length => format!("{},{length}", start + 1),
    }
}

/// Groups the changes, each with the context around it.
fn hunks(mut parts: Vec<Part>) -> Vec<Vec<Part>> {
    if let Some(first) = parts.first_mut().filter(|part| part.is_equal) {
        first.old.0 = first.old.0.max(first.old.1.saturating_sub(CONTEXT));
        first.new.0 = first.new.0.max(first.new.1.saturating_sub(CONTEXT));
    }
    if let Some(last) = parts.last_mut().filter(|part| part.is_equal) {
        last.old.1 = last.old.1.min(last.old.0 + CONTEXT);
        last.new.1 = last.new.1.min(last.new.0 + CONTEXT);
    }
    let mut hunks = Vec::new();
    let mut hunk = Vec::new();
    for part in parts {
        if !part.is_equal || part.old.1 - part.old.0 <= 2 * CONTEXT {
            hunk.push(part);
            continue;
        }
        hunk.push(Part {
            old: (part.old.0, part.old.0 + CONTEXT),
            new: (part.new.0, part.new.0 + CONTEXT),
            ..part
        });
        hunks.push(std::mem::take(&mut hunk));
        hunk.push(Part {
            old: (part.old.1 - CONTEXT, part.old.1),
            new: (part.new.1 - CONTEXT, part.new.1),
            ..part
        });
    }
    hunks.push(hunk);
    hunks.retain(|hunk| hunk.iter().any(|part| !part.is_equal));
    hunks
}

fn parts(old: &[&str], new: &[&str]) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut i, mut j) = (0, 0);
    for block in blocks(old, new) {
        if i < block.old || j < block.new {
            parts.push(Part {
                is_equal: false,
                old: (i, block.old),
                new: (j, block.new),
            });
        }
        (i, j) = (block.old + block.length, block.new + block.length);
        if block.length > 0 {
            parts.push(Part {
                is_equal: true,
                old: (block.old, i),
                new: (block.new, j),
            });
        }
    }
    parts
}

/// The equal lines in order, adjacent ones joined; an empty block is the end.
fn blocks(old: &[&str], new: &[&str]) -> Vec<Block> {
    let matcher = Matcher::new(old, new);
    let mut found = Vec::new();
    let mut open = vec![((0, old.len()), (0, new.len()))];
    while let Some((a, b)) = open.pop() {
        let block = matcher.longest(a, b);
        if block.length == 0 {
            continue;
        }
        found.push(block);
        open.push(((a.0, block.old), (b.0, block.new)));
        open.push((
            (block.old + block.length, a.1),
            (block.new + block.length, b.1),
        ));
    }
    found.sort_by_key(|block| (block.old, block.new));
    let mut joined: Vec<Block> = Vec::new();
    for block in found {
        match joined.last_mut() {
            Some(last)
                if last.old + last.length == block.old && last.new + last.length == block.new =>
            {
                last.length += block.length;
            }
            _ => joined.push(block),
        }
    }
    joined.push(Block {
        old: old.len(),
        new: new.len(),
        length: 0,
    });
    joined
}

struct Matcher<'t> {
    old: &'t [&'t str],
    new: &'t [&'t str],
    /// Where each line of the new text stands in it, but for lines that are too common.
    places: HashMap<&'t str, Vec<usize>>,
}

impl<'t> Matcher<'t> {
    fn new(old: &'t [&'t str], new: &'t [&'t str]) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, line) in new.iter().enumerate() {
            places.entry(line).or_default().push(index);
        }
        if new.len() >= MANY_LINES {
            let most = new.len() / 100 + 1;
            places.retain(|_, at| at.len() <= most);
        }
        Matcher { old, new, places }
    }

    /// The longest run of equal lines, the first one of several.
    fn longest(&self, a: (usize, usize), b: (usize, usize)) -> Block {
        let mut best = Block {
            old: a.0,
            new: b.0,
            length: 0,
        };
        let mut lengths: HashMap<usize, usize> = HashMap::new();
        for i in a.0..a.1 {
            let mut next = HashMap::new();
            let places = self.places.get(self.old[i]);
            for &j in places.into_iter().flatten() {
                if j < b.0 {
                    continue;
                }
                if j >= b.1 {
                    break;
                }
                let before = j.checked_sub(1).and_then(|at| lengths.get(&at));
                let length = before.copied().unwrap_or(0) + 1;
                next.insert(j, length);
                if length > best.length {
                    best = Block {
                        old: i + 1 - length,
                        new: j + 1 - length,
                        length,
                    };
                }
            }
            lengths = next;
        }
        self.grown(best, a, b)
    }

    /// The run with the common lines around it that are equal too.
    fn grown(&self, mut block: Block, a: (usize, usize), b: (usize, usize)) -> Block {
        while block.old > a.0
            && block.new > b.0
            && self.old[block.old - 1] == self.new[block.new - 1]
        {
            block.old -= 1;
            block.new -= 1;
            block.length += 1;
        }
        while block.old + block.length < a.1
            && block.new + block.length < b.1
            && self.old[block.old + block.length] == self.new[block.new + block.length]
        {
            block.length += 1;
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_far_from_each_other_are_apart() {
        let old: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let mut new = old.clone();
        new[1] = "x".to_owned();
        new.remove(15);
        let expected = "@@ -1,5 +1,5 @@\n 0\n-1\n+x\n 2\n 3\n 4\n\
                        @@ -13,7 +13,6 @@\n 12\n 13\n 14\n-15\n 16\n 17\n 18\n";
        assert_eq!(diff(&old.join("\n"), &new.join("\n")), expected);
    }

    #[test]
    fn the_same_differs_in_nothing() {
        assert_eq!(diff("a\nb", "a\nb"), "");
    }
}
