//! What can be asked of a source (clause 4.20).

use std::fmt;

macro_rules! operations {
    ($($variant:ident $name:literal,)*) => {
        /// An operation that a source may support (clause 4.20). Their names say what they are.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each is the operation that its name says")]
        pub enum Operation {
            $($variant,)*
        }

        impl Operation {
            /// All of them with their names.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name)),*];
        }
    };
}

operations! {
    CreateEntity "createEntity",
    UpdateEntity "updateEntity",
    AppendAttrs "appendAttrs",
    UpdateAttrs "updateAttrs",
    DeleteAttrs "deleteAttrs",
    DeleteEntity "deleteEntity",
    CreateBatch "createBatch",
    UpsertBatch "upsertBatch",
    UpdateBatch "updateBatch",
    DeleteBatch "deleteBatch",
    MergeBatch "mergeBatch",
    MergeEntity "mergeEntity",
    ReplaceEntity "replaceEntity",
    ReplaceAttrs "replaceAttrs",
    PurgeEntity "purgeEntity",
    UpsertTemporal "upsertTemporal",
    AppendAttrsTemporal "appendAttrsTemporal",
    DeleteAttrsTemporal "deleteAttrsTemporal",
    UpdateAttrInstanceTemporal "updateAttrInstanceTemporal",
    DeleteAttrInstanceTemporal "deleteAttrInstanceTemporal",
    DeleteTemporal "deleteTemporal",
    RetrieveEntity "retrieveEntity",
    QueryEntity "queryEntity",
    QueryBatch "queryBatch",
    RetrieveTemporal "retrieveTemporal",
    QueryTemporal "queryTemporal",
    RetrieveEntityTypes "retrieveEntityTypes",
    RetrieveEntityTypeDetails "retrieveEntityTypeDetails",
    RetrieveEntityTypeInfo "retrieveEntityTypeInfo",
    RetrieveAttrTypes "retrieveAttrTypes",
    RetrieveAttrTypeDetails "retrieveAttrTypeDetails",
    RetrieveAttrTypeInfo "retrieveAttrTypeInfo",
    CreateSubscription "createSubscription",
    UpdateSubscription "updateSubscription",
    RetrieveSubscription "retrieveSubscription",
    QuerySubscription "querySubscription",
    DeleteSubscription "deleteSubscription",
    RetrieveEntityMap "retrieveEntityMap",
    UpdateEntityMap "updateEntityMap",
    DeleteEntityMap "deleteEntityMap",
    CreateEntityMapQueryEntity "createEntityMapQueryEntity",
    CreateEntityMapQueryTemporal "createEntityMapQueryTemporal",
    RetrieveContextSourceIdentity "retrieveContextSourceIdentity",
}

/// Operations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OperationSet(u64);

/// A name that is no operation and no group.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{name}` is neither an operation nor a group of operations (groups are federationOps, associationOps, retrieveOps, updateOps, redirectionOps)"
)]
pub struct UnknownOperation {
    /// The name.
    pub name: String,
}

/// The groups by name (clause 4.20).
pub const OPERATION_GROUPS: [(&str, OperationSet); 5] = {
    use Operation::{
        AppendAttrs, CreateEntity, CreateEntityMapQueryEntity, CreateSubscription, DeleteAttrs, DeleteEntity, DeleteEntityMap,
        DeleteSubscription, MergeEntity, PurgeEntity, QueryBatch, QueryEntity, QuerySubscription, ReplaceAttrs, ReplaceEntity,
        RetrieveAttrTypeDetails, RetrieveAttrTypeInfo, RetrieveAttrTypes, RetrieveContextSourceIdentity, RetrieveEntity, RetrieveEntityMap,
        RetrieveEntityTypeDetails, RetrieveEntityTypeInfo, RetrieveEntityTypes, RetrieveSubscription, UpdateAttrs, UpdateEntity,
        UpdateEntityMap, UpdateSubscription,
    };
    let retrieve = OperationSet::from_list(&[RetrieveEntity, QueryEntity]);
    let update = OperationSet::from_list(&[UpdateEntity, UpdateAttrs, ReplaceEntity, ReplaceAttrs]);
    let discovery = OperationSet::from_list(&[
        RetrieveEntityTypes,
        RetrieveEntityTypeDetails,
        RetrieveEntityTypeInfo,
        RetrieveAttrTypes,
        RetrieveAttrTypeDetails,
        RetrieveAttrTypeInfo,
        RetrieveContextSourceIdentity,
    ]);
    let subscriptions =
        OperationSet::from_list(&[CreateSubscription, UpdateSubscription, RetrieveSubscription, QuerySubscription, DeleteSubscription]);
    let maps = OperationSet::from_list(&[RetrieveEntityMap, UpdateEntityMap, DeleteEntityMap, CreateEntityMapQueryEntity]);
    let association = retrieve.or(OperationSet::from_list(&[QueryBatch])).or(discovery).or(subscriptions);
    let writes = OperationSet::from_list(&[CreateEntity, AppendAttrs, DeleteAttrs, DeleteEntity, MergeEntity, PurgeEntity]);
    [
        ("federationOps", association.or(maps)),
        ("associationOps", association),
        ("retrieveOps", retrieve),
        ("updateOps", update),
        ("redirectionOps", retrieve.or(update).or(writes).or(discovery).or(maps)),
    ]
};

impl Default for OperationSet {
    /// `federationOps`.
    fn default() -> Self {
        OPERATION_GROUPS[0].1
    }
}

impl OperationSet {
    const fn from_list(list: &[Operation]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < list.len() {
            bits |= 1 << list[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Operations and groups by name; the default if there are none.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownOperation> {
        let mut all: Option<Self> = None;
        for name in names {
            let group = OPERATION_GROUPS.iter().find(|(n, _)| *n == name).map(|(_, set)| *set);
            let one = || Operation::ALL.iter().find(|(_, n)| *n == name).map(|(o, _)| Self::from_list(&[*o]));
            let found = group.or_else(one).ok_or_else(|| UnknownOperation { name: name.chars().take(80).collect() })?;
            all = Some(all.map_or(found, |a| a.or(found)));
        }
        Ok(all.unwrap_or_default())
    }

    /// Is it one of them?
    #[must_use]
    pub const fn has(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u8) != 0
    }

    /// Are all of them in `other`?
    #[must_use]
    pub const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// These alone.
    #[must_use]
    pub const fn only(list: &[Operation]) -> Self {
        Self::from_list(list)
    }
}

impl Operation {
    /// The name as NGSI-LD writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

impl fmt::Debug for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(Operation::ALL.iter().filter(|(o, _)| self.has(*o)).map(|(_, n)| n)).finish()
    }
}
