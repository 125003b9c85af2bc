//! Fields that an object's JSON has twice. `serde` takes the last of them without a word.

/// The paths of fields that were given before in the same object.
pub fn find(json: &[u8]) -> Vec<String> {
    let mut finder = Finder {
        json,
        path: Vec::new(),
        found: Vec::new(),
    };
    finder.value(0);
    finder.found
}

enum Step<'a> {
    Field(&'a [u8]),
    Index(usize),
}

struct Finder<'a> {
    json: &'a [u8],
    path: Vec<Step<'a>>,
    found: Vec<String>,
}

impl<'a> Finder<'a> {
    /// Looks at the value at `at` and returns the position after it. The JSON was parsed
    /// before, so it is well-formed.
    fn value(&mut self, at: usize) -> usize {
        let at = self.blank(at);
        match self.json.get(at) {
            Some(b'{') => self.object(at + 1),
            Some(b'[') => self.array(at + 1),
            Some(b'"') => self.string(at),
            _ => self.scalar(at),
        }
    }

    fn object(&mut self, mut at: usize) -> usize {
        let mut keys: Vec<&'a [u8]> = Vec::new();
        loop {
            at = self.blank(at);
            match self.json.get(at) {
                Some(b'"') => {}
                Some(b',') => {
                    at += 1;
                    continue;
                }
                _ => return at + 1,
            }
            let end = self.string(at);
            let key = &self.json[at + 1..end.saturating_sub(1).max(at + 1)];
            self.path.push(Step::Field(key));
            if keys.contains(&key) {
                let path = self.path();
                self.found.push(path);
            } else {
                keys.push(key);
            }
            // The colon.
            at = self.blank(end) + 1;
            at = self.value(at);
            self.path.pop();
        }
    }

    fn array(&mut self, mut at: usize) -> usize {
        let mut index = 0;
        loop {
            at = self.blank(at);
            match self.json.get(at) {
                Some(b',') => at += 1,
                Some(b']') | None => return at + 1,
                Some(_) => {
                    self.path.push(Step::Index(index));
                    at = self.value(at);
                    self.path.pop();
                    index += 1;
                }
            }
        }
    }

    fn string(&self, at: usize) -> usize {
        let mut at = at + 1;
        while let Some(byte) = self.json.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        at
    }

    fn scalar(&self, mut at: usize) -> usize {
        while let Some(byte) = self.json.get(at) {
            if matches!(byte, b',' | b'}' | b']') || byte.is_ascii_whitespace() {
                break;
            }
            at += 1;
        }
        at
    }

    fn blank(&self, mut at: usize) -> usize {
        while self.json.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    }

    fn path(&self) -> String {
        let mut out = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(&String::from_utf8_lossy(name));
                }
                Step::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::find;

    #[test]
    fn finds_them_at_every_depth() {
        let json = br#" { "a" : [ {"b":1, "c": {}, "b" : "x\"y"} , [] ], "d": null, "a": 2.5e3 } "#;
        assert_eq!(find(json), ["a[0].b", "a"]);
        assert!(find(br#"{"a":{"b":1},"c":{"b":1}}"#).is_empty());
        assert!(find(b"{}").is_empty());
    }
}
