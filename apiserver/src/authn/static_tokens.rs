//! Tokens of a file: one user a line, `token,user,uid,"group1,group2"`.

use std::collections::HashMap;

use async_trait::async_trait;
use coracle_api::Identity;

use super::{AuthenticationError, TokenAuthenticator, TokenUser};

/// What is wrong with a token file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StaticTokensError {
    #[error(
        "line {line} of the token file has {columns} columns, it needs at least token, user name and user uid"
    )]
    Columns { line: usize, columns: usize },
    #[error("line {0} of the token file has an empty token")]
    Empty(usize),
    #[error("line {0} of the token file has a quote that does not end")]
    Quote(usize),
}

/// The users of a token file.
#[derive(Debug, Default)]
pub struct StaticTokens(HashMap<String, Identity>);

impl StaticTokens {
    /// Reads the content of a file. Empty lines are passed over; if a token comes twice, the
    /// last counts.
    pub fn parse(csv: &str) -> Result<Self, StaticTokensError> {
        let mut users = HashMap::new();
        for (index, text) in csv.lines().enumerate() {
            let line = index + 1;
            if text.trim().is_empty() {
                continue;
            }
            let columns = split(text).ok_or(StaticTokensError::Quote(line))?;
            let [token, user, uid, rest @ ..] = columns.as_slice() else {
                let columns = columns.len();
                return Err(StaticTokensError::Columns { line, columns });
            };
            if token.is_empty() {
                return Err(StaticTokensError::Empty(line));
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let identity = Identity {
                user: user.clone(),
                uid: uid.clone(),
                groups: groups
                    .split(',')
                    .filter(|group| !group.is_empty())
                    .map(str::to_owned)
                    .collect(),
                ..Identity::default()
            };
            users.insert(token.clone(), identity);
        }
        Ok(StaticTokens(users))
    }

    /// Adds a user.
    pub fn insert(&mut self, token: String, identity: Identity) {
        self.0.insert(token, identity);
    }
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<TokenUser>, AuthenticationError> {
        Ok(self.0.get(token).map(|identity| TokenUser {
            identity: identity.clone(),
            audiences: audiences.to_vec(),
            ..TokenUser::default()
        }))
    }
}

/// The columns of a line of CSV (RFC 4180, without line breaks in values).
fn split(line: &str) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    let mut rest = line.trim_end_matches('\r');
    loop {
        let (column, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_value(quoted)?,
            None => match rest.find(',') {
                Some(comma) => (rest[..comma].to_owned(), &rest[comma..]),
                None => (rest.to_owned(), ""),
            },
        };
        columns.push(column.trim().to_owned());
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Some(columns),
        }
    }
}

/// The value after an opening quote, and what follows the closing one.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                value.push('"');
                rest = after;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_users() {
        let tokens = StaticTokens::parse(
            "t1,jane,1,\"dev,ops\"\n\nt2,joe,2\r\nt3,\"say \"\"hi\"\"\",3,one\n",
        )
        .unwrap();
        let user = |token: &str| {
            let identity = &tokens.0[token];
            (identity.user.as_str(), identity.groups.join("+"))
        };
        assert_eq!(user("t1"), ("jane", "dev+ops".to_owned()));
        assert_eq!(user("t2"), ("joe", String::new()));
        assert_eq!(user("t3"), ("say \"hi\"", "one".to_owned()));
    }

    #[test]
    fn bad_lines_are_named() {
        let error = |csv| StaticTokens::parse(csv).err();
        assert_eq!(
            error("a,b,c\nd,e"),
            Some(StaticTokensError::Columns {
                line: 2,
                columns: 2
            })
        );
        assert_eq!(error(",b,c"), Some(StaticTokensError::Empty(1)));
        assert_eq!(error("\"a,b,c"), Some(StaticTokensError::Quote(1)));
    }
}
