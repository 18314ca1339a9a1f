"""The same networks on other servers, as a user of those would host them: `sdcom bench peers`."""
