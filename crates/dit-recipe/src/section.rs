//! The macro that makes the recipe's sections: each key is written once, with its type, its default, its help, and whether
//! a run that continues may have another value.

/// What is known about one key without a recipe at hand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyInfo {
    pub section: &'static str,
    pub key: &'static str,
    /// The lines of its documentation.
    pub help: &'static [&'static str],
    pub change: Change,
}

/// Whether a run that continues may have another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It decides the numbers: another value would be another run.
    Fixed,
    /// It decides how long the run is, or what is kept and shown of it.
    Free,
}

/// A value as it stands in a recipe; none for an option that is not given.
pub(crate) fn text(value: &impl serde::Serialize) -> Option<String> {
    toml::Value::try_from(value).ok().map(|value| value.to_string())
}

macro_rules! sections {
    ($(
        $(#[doc = $section_help:literal])*
        [$section:ident] $Section:ident {
            $(
                $(#[doc = $help:literal])*
                $change:ident $key:ident: $type:ty = $default:expr;
            )*
        }
    )*) => {
        $(
            $(#[doc = $section_help])*
            #[derive(Debug, Clone, PartialEq)]
            pub struct $Section {
                $(
                    $(#[doc = $help])*
                    pub $key: $type,
                )*
            }

            impl Default for $Section {
                fn default() -> Self {
                    Self { $($key: $default),* }
                }
            }
        )*

        /// The values of a recipe, unchecked; [`Recipe`](crate::Recipe) is the checked form. The default of every key is the
        /// original's recipe.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Sections {
            $(
                $(#[doc = $section_help])*
                pub $section: $Section,
            )*
        }

        impl Sections {
            /// Every section: its name and its help.
            pub(crate) const SECTIONS: &'static [(&'static str, &'static [&'static str])] =
                &[$((stringify!($section), &[$($section_help),*])),*];

            /// Every key, in the order in which a recipe is printed.
            pub(crate) const KEYS: &'static [$crate::section::KeyInfo] = &[$($(
                $crate::section::KeyInfo {
                    section: stringify!($section),
                    key: stringify!($key),
                    help: &[$($help),*],
                    change: $crate::section::Change::$change,
                },
            )*)*];

            /// Reads a key's value; none where there is no such key.
            pub(crate) fn set(
                &mut self,
                section: &str,
                key: &str,
                value: toml::Spanned<toml::de::DeValue<'_>>,
            ) -> Option<Result<(), toml::de::Error>> {
                let value = toml::de::ValueDeserializer::from(value);
                match (section, key) {
                    $($(
                        (stringify!($section), stringify!($key)) => {
                            Some(serde::Deserialize::deserialize(value).map(|value| self.$section.$key = value))
                        }
                    )*)*
                    _ => None,
                }
            }

            /// A key's value as it stands in a recipe; none where there is no such key, or an option is not given.
            pub(crate) fn get(&self, section: &str, key: &str) -> Option<String> {
                match (section, key) {
                    $($((stringify!($section), stringify!($key)) => $crate::section::text(&self.$section.$key),)*)*
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use sections;
