//! The address of a mapper, or those of several.

use svcmap_proto::names::Endpoint;

/// One address, `tcp://HOST:PORT`, or several: text, an [`Endpoint`], or a list of either.
///
/// ```
/// use svcmap_worker::IntoAddresses;
///
/// assert_eq!("tcp://a:5555".into_addresses(), ["tcp://a:5555"]);
/// assert_eq!(["tcp://a:5555", "tcp://b:5555"].into_addresses().len(), 2);
/// ```
pub trait IntoAddresses {
    /// All of them.
    fn into_addresses(self) -> Vec<String>;
}

macro_rules! one {
    ($($address:ty),*) => {$(
        impl IntoAddresses for $address {
            fn into_addresses(self) -> Vec<String> {
                vec![self.to_string()]
            }
        }
    )*};
}

one!(&str, &&str, String, &String, Endpoint, &Endpoint);

fn several<T: IntoAddresses>(addresses: impl IntoIterator<Item = T>) -> Vec<String> {
    addresses.into_iter().flat_map(T::into_addresses).collect()
}

impl<T: IntoAddresses, const N: usize> IntoAddresses for [T; N] {
    fn into_addresses(self) -> Vec<String> {
        several(self)
    }
}

impl<T: IntoAddresses> IntoAddresses for Vec<T> {
    fn into_addresses(self) -> Vec<String> {
        several(self)
    }
}

impl<'a, T> IntoAddresses for &'a [T]
where
    &'a T: IntoAddresses,
{
    fn into_addresses(self) -> Vec<String> {
        several(self)
    }
}

impl<'a, T, const N: usize> IntoAddresses for &'a [T; N]
where
    &'a T: IntoAddresses,
{
    fn into_addresses(self) -> Vec<String> {
        several(self)
    }
}

impl<'a, T> IntoAddresses for &'a Vec<T>
where
    &'a T: IntoAddresses,
{
    fn into_addresses(self) -> Vec<String> {
        several(self)
    }
}
