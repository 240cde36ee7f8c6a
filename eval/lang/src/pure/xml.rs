//! The writer behind `builtins.toXML`: elements, attributes, indentation.
//!
//! Invariants
//! - the document starts with the declaration Nix writes, every element stands on a line of its own, two blanks
//!   deeper than the one around it;
//! - attributes come sorted by name, and each name once (the last value given wins);
//! - what is opened is closed, at the latest by [`XmlWriter::finish`].
//!
//! Bytes that are not XML characters are passed on as they are, as in Nix.

/// Builds one document in memory.
#[derive(Debug)]
pub struct XmlWriter {
    out: Vec<u8>,
    open: Vec<&'static str>,
}

impl XmlWriter {
    /// A document with its declaration and nothing else.
    pub fn new() -> Self {
        Self {
            out: b"<?xml version='1.0' encoding='utf-8'?>\n".to_vec(),
            open: Vec::new(),
        }
    }

    /// Opens an element; what follows is inside it until [`XmlWriter::close`].
    pub fn open(&mut self, name: &'static str, attributes: &[(&str, &[u8])]) {
        self.start(name, attributes);
        self.out.extend_from_slice(b">\n");
        self.open.push(name);
    }

    /// Writes an element without content.
    pub fn empty(&mut self, name: &'static str, attributes: &[(&str, &[u8])]) {
        self.start(name, attributes);
        self.out.extend_from_slice(b" />\n");
    }

    /// Closes the element opened last; nothing happens when none is open.
    pub fn close(&mut self) {
        let Some(name) = self.open.pop() else { return };
        self.indent();
        self.out.extend_from_slice(b"</");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b">\n");
    }

    /// Closes what is open and gives the document.
    pub fn finish(mut self) -> Vec<u8> {
        while !self.open.is_empty() {
            self.close();
        }
        self.out
    }

    fn indent(&mut self) {
        self.out.resize(self.out.len() + 2 * self.open.len(), b' ');
    }

    fn start(&mut self, name: &str, attributes: &[(&str, &[u8])]) {
        self.indent();
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        let sorted: std::collections::BTreeMap<&str, &[u8]> = attributes.iter().copied().collect();
        for (name, value) in sorted {
            self.out.push(b' ');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"=\"");
            escape(&mut self.out, value);
            self.out.push(b'"');
        }
    }
}

impl Default for XmlWriter {
    fn default() -> Self {
        Self::new()
    }
}

/// Escapes an attribute's value; line feeds too, which attribute normalisation would turn into blanks (XML 1.0, 3.3.3).
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    for &byte in value {
        match byte {
            b'"' => out.extend_from_slice(b"&quot;"),
            b'<' => out.extend_from_slice(b"&lt;"),
            b'>' => out.extend_from_slice(b"&gt;"),
            b'&' => out.extend_from_slice(b"&amp;"),
            b'\n' => out.extend_from_slice(b"&#xA;"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
