use crate::{Event, Observer, ObserverError};

/// Several observers as one, in their order. The first error ends the round, and the run.
#[derive(Default)]
pub struct Together<'a>(Vec<Box<dyn Observer + 'a>>);

impl<'a> Together<'a> {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// And this one.
    #[must_use]
    pub fn and(mut self, observer: impl Observer + 'a) -> Self {
        self.0.push(Box::new(observer));
        self
    }
}

impl Observer for Together<'_> {
    fn observe(&mut self, event: &Event<'_>) -> Result<(), ObserverError> {
        self.0.iter_mut().try_for_each(|observer| observer.observe(event))
    }
}
